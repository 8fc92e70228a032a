"""A machine with podman or docker: all that is the same wherever it stands."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx

from ciserver.lib.certificates import trusted
from ciserver.releases.targets import credentials, engine, networks, secret_files
from ciserver.releases.targets.commands import QUICK, SLOW, Pulse, still
from ciserver.releases.targets.credentials import Credentials
from ciserver.releases.targets.engine import Engine
from ciserver.releases.targets.errors import (
    CommandFailed,
    CommandTimedOut,
    NoEngine,
    TargetError,
    understood,
)
from ciserver.releases.targets.images import Location, bytes_missing
from ciserver.releases.targets.machine import Machine
from ciserver.releases.targets.spec import Check, Container, ImageFacts, Wanted

PORT_TRIES = 5
NAME_TAKEN = "is already in use by"
NO_NETWORK = re.compile(r"\bnetwork\b.* not found")
TAKEN = ("address already in use", "port is already allocated")
NO_PORT = "the image exposes no port to ask; let it EXPOSE one, or check it by 'exec COMMAND'"
AT_A_TIME = 100  # images
KEPT = 64 * 1024  # bytes of what a container says, at most
STALE = 60.0  # seconds after which a network is looked at again before something starts in it
DRAIN = 10.0  # seconds for requests under way
GRACE = 10  # seconds between asking a container to stop and killing it
# Those of its arguments that are processes, and not only what is left of one that ended.
LIVING = """
for process; do
  grep -q '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$process/status" 2>/dev/null && echo "$process"
done
true
"""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class EngineTarget:
    """Implements ``targets.Target`` but for ``proxy``."""

    def __init__(self, machine: Machine, engine: Engine) -> None:
        self.machine = machine
        self.engine = engine
        self._images: dict[str, str] = {}  # names by reference, of images that are there
        self._ready: dict[str, float] = {}  # when (monotonic) a network was seen to be guarded

    def pull(
        self,
        image: ImageFacts,
        location: Location,
        credentials_of: Callable[[], Credentials | None],
        *,
        network: str = "",
        brought: Collection[str] = (),
        pulse: Pulse = still,
    ) -> int:
        beside = ThreadPoolExecutor(1, "ready")
        beside.submit(self._get_ready, network)
        try:
            moved = self._pull(image, location, credentials_of, brought, pulse)
        except BaseException:
            # Behind layers that fill the way to a host it may take half a minute: who cancels does
            # not wait for it. It does nothing that a later deployment would not find done.
            beside.shutdown(wait=False)
            raise
        beside.shutdown()
        return moved

    def _get_ready(self, network: str) -> None:
        """What is needed after a pull, while layers travel. What fails here is asked for again by
        who needs it, and told then."""
        if network:
            with suppress(TargetError):
                if not networks.is_guarded(self.machine, self.engine, network):
                    networks.ensure(self.machine, self.engine, network)
                self._ready[network] = time.monotonic()

    def _pull(
        self,
        image: ImageFacts,
        location: Location,
        credentials_of: Callable[[], Credentials | None],
        brought: Collection[str],
        pulse: Pulse,
    ) -> int:
        reference = f"{location.registry}/{location.name}@{image.digest}"
        look = image.config_digest in brought
        if look and self._is_here(image, reference):
            return 0
        try:
            moved, name = self._fetch(image, location, credentials_of, brought, pulse)
        except TargetError:
            if not look and self._is_here(image, reference):
                return 0  # somebody else brought it
            raise
        self._images[reference] = name
        return moved

    def _is_here(self, image: ImageFacts, reference: str) -> bool:
        names = (reference, image.config_digest, image.digest)
        asked = self.machine.attempt(self.engine.inspect_images(names), timeout=QUICK)
        with understood("'image inspect'"):
            found = json.loads(asked.out or "[]")  # those that are there, whatever the exit code
            if found:
                self._images[reference] = str(found[0]["Id"])
        return bool(found)

    def _fetch(
        self,
        image: ImageFacts,
        location: Location,
        credentials_of: Callable[[], Credentials | None],
        brought: Collection[str],
        pulse: Pulse,
    ) -> tuple[int, str]:
        """Get what is not there: how many bytes of layers came, and the image's name."""
        missing = bytes_missing(image.layers, self._layers(brought))
        reference = f"{location.registry}/{location.name}@{image.digest}"
        argv = self.engine.pull(reference, plain_http=location.plain_http)
        config = credentials.config(location.registry, credentials_of())
        pulled = self.machine.run(argv, timeout=SLOW, stdin=config, pulse=pulse)
        return missing, self.engine.name_of(pulled.out, reference)

    def start(self, wanted: Wanted) -> Container:
        started = self._start(wanted)
        if wanted.network:
            try:
                networks.guard_again(self.machine, self.engine, wanted.network)
            except TargetError:
                if not started.image_id:  # else it was there before, and may serve
                    self.machine.attempt(self.engine.remove(wanted.name), timeout=QUICK)
                raise
        return started

    def _start(self, wanted: Wanted) -> Container:
        ready = self._ready.get(wanted.network, -STALE)
        if wanted.network and time.monotonic() - ready >= STALE:
            networks.ensure(self.machine, self.engine, wanted.network)
        try:
            return self._run(wanted)
        except CommandFailed as error:
            if NO_NETWORK.search(str(error)):  # it was removed since it was seen to be guarded
                networks.ensure(self.machine, self.engine, wanted.network)
                return self._run(wanted)
            # Asked for only now: as a rule it is not there, and each question takes its time.
            if NAME_TAKEN not in str(error):
                raise
            there = self.find(wanted.name)
            if there is None:
                # One whose removal was killed half way keeps its name; to list ends that.
                self.containers({"installation": wanted.labels.get("installation", "")})
                return self._run(wanted)
        if there.running:
            return there if self.checked([there])[0].running else self._make_anew(wanted, there)
        try:
            return self.resume(there)
        except CommandFailed:
            return self._make_anew(wanted, there)

    def _make_anew(self, wanted: Wanted, dead: Container) -> Container:
        """One whose monitor was killed can never be started again; podman may not know it yet."""
        self.remove(dead, grace=0, alone=False)
        return self._run(wanted)

    def resume(self, container: Container) -> Container:
        networks.guard(self.machine, self.engine)  # a reboot has taken the rules away
        self.machine.run(self.engine.start(container.id), timeout=QUICK)
        if network := container.labels.get("network"):
            networks.guard_again(self.machine, self.engine, network)
        return self._inspect([container.id])[0]

    def find(self, name: str) -> Container | None:
        answer = self.machine.attempt(self.engine.inspect([name]), timeout=QUICK)
        return engine.parse_containers(answer.out)[0] if answer.code == 0 else None

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        said = self.machine.run(self.engine.inspect_all(labels), timeout=QUICK).out
        return engine.parse_containers(said or "[]", some=False)[::-1]

    def checked(self, found: Sequence[Container]) -> list[Container]:
        """Podman goes on saying that one runs whose monitor was killed before it ended."""
        pids = [str(one.pid) for one in found if one.running and one.pid]
        if not pids:
            return list(found)
        said = self.machine.attempt(["sh", "-c", LIVING, "living", *pids], timeout=QUICK)
        there = set(said.out.split())
        return [
            replace(one, running=False)
            if str(one.pid) in pids and str(one.pid) not in there
            else one
            for one in found
        ]

    def probe(self, container: Container, check: Check, *, pulse: Pulse = still) -> str:
        if check.command:
            return self._probe_command(container, check, pulse)
        if check.path and container.address:
            transport = self.machine.transport(container.address)
            return probe_http(f"http://{container.address}{check.path}", check.timeout, transport)
        if not container.address:
            return NO_PORT if check.path or check.tcp else ""
        there = self.machine.connects(container.address, check.timeout)
        return "" if there else "nothing answers on its port"

    def last_lines(self, container: Container, lines: int) -> str:
        argv = self.engine.logs(container.id, lines)
        said = self.machine.attempt(argv, timeout=QUICK, keep=KEPT)
        return CONTROL.sub("", said.out + said.err).strip()

    def exit_code(self, container: Container) -> int | None:
        answer = self.machine.attempt(self.engine.deaths(container.id), timeout=QUICK)
        return engine.parse_exit_code(answer.out) if answer.code == 0 else None

    def remove(self, container: Container, *, grace: int, alone: bool = True) -> None:
        seconds = grace if container.running else 0
        argv = self.engine.end(container.id, seconds)
        removed = self.machine.attempt(argv, timeout=seconds + QUICK)
        if removed.code != 0 and self.find(container.id):
            # Of one whose monitor was killed podman finds out only now that it does not run.
            removed = self.machine.attempt(self.engine.remove(container.id), timeout=QUICK)
        if removed.code != 0 and self.find(container.id):
            raise CommandFailed(self.engine.remove(container.id), removed.code, removed.err)
        network = container.labels.get("network")
        if network and alone:
            networks.remove_unused(self.machine, self.engine, network)

    def images(self, among: Iterable[str]) -> set[str]:
        rows = list(self._inspected(among))
        with understood("'image inspect'"):
            return {f"sha256:{row['Id'].removeprefix('sha256:')}" for row in rows}

    def remove_images(self, ids: Iterable[str]) -> None:
        for one in sorted(ids):
            self.machine.attempt(self.engine.remove_image(one), timeout=QUICK)

    def guard(self) -> None:
        networks.guard(self.machine, self.engine)

    def _run(self, wanted: Wanted) -> Container:
        """A port that is free now may be taken a moment later: then another is tried."""
        env = engine.env_file(wanted.env)
        known = replace(wanted, reference=self._images.get(wanted.reference, wanted.reference))
        tries_left = PORT_TRIES
        while True:
            tries_left -= 1
            port = self.machine.free_port()
            argv = self.engine.run(known, host_port=port)
            try:
                said = self.machine.run(argv, timeout=QUICK, stdin=env).out
                id = engine.parse_id(said)
                if wanted.files:
                    files = secret_files.archive(wanted.files)
                    self.machine.run(self.engine.copy_in(id), timeout=QUICK, stdin=files)
                    self.machine.run(self.engine.start(id), timeout=QUICK)
            except CommandFailed as error:
                if NAME_TAKEN in str(error):
                    raise
                # An engine that could not start a container keeps it, and its name with it.
                self.machine.attempt(self.engine.remove(wanted.name), timeout=QUICK)
                if not tries_left or not any(words in str(error) for words in TAKEN):
                    raise
            else:
                return _new(wanted, id, port)

    def _inspect(self, ids: list[str]) -> list[Container]:
        if not ids:
            return []
        answer = self.machine.attempt(self.engine.inspect(ids), timeout=QUICK)
        # One that was removed since it was listed makes the command fail; the others are there.
        found = engine.parse_containers(answer.out or "[]", some=False)
        if not found and len(ids) == 1:
            raise CommandFailed(self.engine.inspect(ids), answer.code, answer.err)
        return found

    def _layers(self, images: Collection[str]) -> set[str]:
        """Diff ids of all layers of ``images`` that are there, to tell what a pull moves."""
        found: set[str] = set()
        for image in self._inspected(images):
            with understood("'image inspect'"):
                found.update((image.get("RootFS") or {}).get("Layers") or ())
        return found

    def _inspected(self, ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Of those that are there, whatever the exit code. To list what a machine has would take
        podman seconds."""
        asked = sorted(one.removeprefix("sha256:") for one in ids)
        for first in range(0, len(asked), AT_A_TIME):
            some = self.engine.inspect_images(asked[first : first + AT_A_TIME])
            said = self.machine.attempt(some, timeout=QUICK).out
            with understood("'image inspect'"):
                rows = list(json.loads(said or "[]"))
            yield from rows

    def _probe_command(self, container: Container, check: Check, pulse: Pulse) -> str:
        # sshd goes on with what has no end, and has only so many sessions.
        ends = ["timeout", "-s", "KILL", str(math.ceil(check.timeout) + 1)]
        argv = [*ends, *self.engine.execute(container.id, check.command)]
        try:
            result = self.machine.attempt(argv, timeout=check.timeout, keep=KEPT, pulse=pulse)
        except CommandTimedOut:
            return f"the HEALTHCHECK did not end within {round(check.timeout, 1):g} s"
        if result.code == 0:
            return ""
        words = CONTROL.sub("", result.out + result.err).strip()
        return f"the HEALTHCHECK ended with exit code {result.code}" + (
            f": {words}" if words else ""
        )


def _new(wanted: Wanted, container_id: str, port: int) -> Container:
    return Container(
        id=container_id,
        name=wanted.name,
        image_id="",
        labels=wanted.labels,
        running=True,
        oom_killed=False,
        restarts=0,
        address=f"127.0.0.1:{port}" if wanted.port else "",
    )


def find_engine(machine: Machine) -> Engine:
    """Podman if it works there, else docker. Raises NoEngine, with what each said."""
    facts = machine.facts
    if facts.engine:
        return engine.choose(facts.engine, facts)
    missing = [name for name in ("podman", "docker") if name not in facts.programs]
    said = [*(f"{name} is not installed" for name in missing), *facts.complaints]
    raise NoEngine(
        f"No container engine works on this host ({'; '.join(said)}). Install podman, perhaps by"
        " 'gantry hosts prepare', or start the one that there is."
    )


def probe_http(url: str, timeout: float, transport: httpx.AsyncBaseTransport | None = None) -> str:
    """A server that answers anything below 500 is up: not every application has a page at /."""
    path = urlsplit(url).path
    late = f"GET {path} had no answer within {round(timeout, 1):g} s"
    try:
        status = asyncio.run(asyncio.wait_for(_status(url, transport), timeout))
    except (TimeoutError, httpx.TimeoutException):
        return late
    except httpx.HTTPError:
        return "nothing answers on its port"
    return f"GET {path} answered {status}" if status >= 500 else ""


async def _status(url: str, transport: httpx.AsyncBaseTransport | None) -> int:
    """httpx's own time-outs begin anew with each byte: the caller bounds the whole."""
    async with (
        httpx.AsyncClient(
            timeout=QUICK, trust_env=False, transport=transport, verify=trusted()
        ) as client,
        client.stream("GET", url) as response,
    ):
        return response.status_code
