"""A machine behind ssh. One connection carries all: commands, ports and layers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from ciserver.releases.targets import connection, host_proxy, relay
from ciserver.releases.targets.base import EngineTarget, find_engine
from ciserver.releases.targets.commands import SLOW, Pulse
from ciserver.releases.targets.connection import Connection
from ciserver.releases.targets.credentials import Credentials, config
from ciserver.releases.targets.errors import TargetError
from ciserver.releases.targets.images import Location
from ciserver.releases.targets.proxy import Proxy
from ciserver.releases.targets.spec import ImageFacts, Place


class SshTarget(EngineTarget):
    """Implements ``targets.Target``."""

    machine: Connection

    @classmethod
    @contextmanager
    def open(cls, place: Place, run: Path) -> Iterator[SshTarget]:
        """Sockets of the connection are in ``run`` while the block lasts. Raises TargetError."""
        with connection.connect(place, run) as machine:
            yield cls(machine, find_engine(machine))

    @cached_property
    def proxy(self) -> Proxy:
        """Caddy on the host, started if it was not; without Caddy one that takes no route."""
        return host_proxy.open_proxy(self.machine)

    def _get_ready(self, network: str) -> None:
        super()._get_ready(network)
        with suppress(TargetError):
            _ = self.proxy

    def _fetch(
        self,
        image: ImageFacts,
        location: Location,
        credentials_of: Callable[[], Credentials | None],
        brought: Collection[str],
        pulse: Pulse,
    ) -> tuple[int, str]:
        """From the registry if the host reaches it, else through this connection. A registry on
        our loopback is never the host's."""
        if not location.plain_http and self.machine.connects(location.endpoint, 5.0):
            return super()._fetch(image, location, credentials_of, brought, pulse)
        with (
            tempfile.TemporaryDirectory(dir=self.machine.folder) as folder,
            relay.serve(image, location, credentials_of, Path(folder) / "registry") as served,
        ):
            near = Location(f"127.0.0.1:{self.machine.exposed(served.socket)}", location.name)
            reference = f"{near.registry}/{near.name}@{image.digest}"
            argv = self.engine.pull(reference, plain_http=True)
            given = config(near.registry, served.credentials)
            pulled = self.machine.run(argv, timeout=SLOW, stdin=given, pulse=pulse)
            return served.sent, self.engine.name_of(pulled.out, reference)
