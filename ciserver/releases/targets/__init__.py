"""Where containers run: one file per kind of host, one table that lists them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ciserver.releases.targets.commands import Pulse, still
from ciserver.releases.targets.credentials import Credentials
from ciserver.releases.targets.engine import Engine
from ciserver.releases.targets.errors import TargetError
from ciserver.releases.targets.images import Location
from ciserver.releases.targets.local import LocalTarget
from ciserver.releases.targets.machine import Machine
from ciserver.releases.targets.proxy import Proxy
from ciserver.releases.targets.spec import Check, Container, ImageFacts, Place, Wanted
from ciserver.releases.targets.ssh import SshTarget


class Target(Protocol):
    """A machine that runs containers. Every call may fail with a TargetError and none takes for
    ever; every call may be made again after a crash and then finds what the first one did.
    """

    @property
    def machine(self) -> Machine:
        """Where its commands run."""

    @property
    def engine(self) -> Engine:
        """The words of its podman or docker."""

    @property
    def proxy(self) -> Proxy:
        """The proxy that answers on this machine's ports."""

    def pull(
        self,
        image: ImageFacts,
        location: Location,
        credentials: Callable[[], Credentials | None],
        *,
        network: str = "",
        brought: Collection[str] = (),
        pulse: Pulse = still,
    ) -> int:
        """Have ``image``; the bytes of the layers that were not there before. Meanwhile
        ``network``, which a container is about to be started in, is made ready too, and ``pulse``
        is called: what it raises ends the pull.

        ``brought`` names images (digests of their configurations) that came here before: whether
        they are there still is looked at, and nothing else is, since to list all that a machine
        has takes an engine seconds."""

    def start(self, wanted: Wanted) -> Container:
        """Start a container, or return the one of that name, started again if it had stopped. Of
        a new one ``image_id``, ``pid`` and ``started`` are not known before ``find``."""

    def resume(self, container: Container) -> Container:
        """Start one that stopped; its address may be another then."""

    def guard(self) -> None:
        """Keep containers from the machine itself, should its rules have been flushed."""

    def find(self, name: str) -> Container | None:
        """The container of that name, running or not."""

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        """Those with all of ``labels``, running or not, oldest first."""

    def checked(self, found: Sequence[Container]) -> list[Container]:
        """The same, by what the machine itself says of their processes: podman goes on saying
        that one runs whose monitor was killed."""

    def probe(self, container: Container, check: Check, *, pulse: Pulse = still) -> str:
        """One try: empty when it is healthy, else what was wrong. Of one that may take long
        ``pulse`` is called meanwhile: what it raises ends it."""

    def last_lines(self, container: Container, lines: int) -> str:
        """The end of its log."""

    def exit_code(self, container: Container) -> int | None:
        """How it last ended, even if the engine has started it again since; None if unknown."""

    def remove(self, container: Container, *, grace: int, alone: bool = True) -> None:
        """Ask it to stop, kill it after ``grace`` seconds, and remove it and its volumes; its
        network, too, if it was ``alone`` there."""

    def images(self, among: Iterable[str]) -> set[str]:
        """Which images of these ids (digests of configurations) are there."""

    def remove_images(self, ids: Iterable[str]) -> None:
        """Away with those, but for what has a container or more than one name."""


KINDS: dict[str, Callable[[Place, Path], AbstractContextManager[Target]]] = {
    "local": LocalTarget.open,
    "ssh": SshTarget.open,
}


def open_target(place: Place, *, run: Path) -> AbstractContextManager[Target]:
    """The target for a host, open for a block. ``run`` holds sockets. Raises TargetError."""
    try:
        make = KINDS[place.kind]
    except KeyError:
        raise TargetError(
            f"No kind of host is named {place.kind!r}; there are: {', '.join(KINDS)}."
        ) from None
    return make(place, run)
