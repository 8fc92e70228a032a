"""This very machine, with its own podman or docker, and Caddy in front."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from ciserver.releases.targets import commands, credentials, engine, networks
from ciserver.releases.targets.credentials import Credentials
from ciserver.releases.targets.engine import Engine
from ciserver.releases.targets.errors import CommandFailed, CommandTimedOut, NoEngine
from ciserver.releases.targets.images import Location, bytes_missing
from ciserver.releases.targets.proxy import Proxy
from ciserver.releases.targets.spec import Check, Container, ImageFacts, Wanted

PORT_TRIES = 3
NO_PORT = "the image exposes no port to ask; let it EXPOSE one, or check it by 'exec COMMAND'"
QUICK, SLOW = 30.0, 600.0  # seconds for a command that asks, and for one that moves layers
CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class LocalTarget:
    """Implements ``targets.Target``."""

    def __init__(self, engine: Engine, proxy: Proxy) -> None:
        self.engine = engine
        self.proxy = proxy

    @classmethod
    def open(cls, run: Path, address: str) -> LocalTarget:
        """``address`` is not used: the machine is this one."""
        return cls(find_engine(), Proxy(run / "caddy.sock"))

    def pull(
        self,
        image: ImageFacts,
        location: Location,
        credentials_of: Callable[[], Credentials | None],
    ) -> int:
        reference = f"{location.registry}/{location.name}@{image.digest}"
        if self._has(reference):
            return 0
        missing = bytes_missing(image.layers, self._layers())
        with credentials.folder(location.registry, credentials_of()) as path:
            argv = self.engine.pull(reference, credentials=path, plain_http=location.plain_http)
            commands.run(argv, timeout=SLOW)
        return missing

    def start(self, wanted: Wanted) -> Container:
        if wanted.network:
            networks.ensure(self.engine, wanted.network)
        found = self.find(wanted.name)
        if found is None:
            self._run(wanted)
            return self._inspect([wanted.name])[0]
        return found if found.running else self.resume(found)

    def resume(self, container: Container) -> Container:
        networks.guard(self.engine)  # a reboot has taken the rules away
        commands.run(self.engine.start(container.id), timeout=QUICK)
        return self._inspect([container.id])[0]

    def find(self, name: str) -> Container | None:
        answer = commands.attempt(self.engine.inspect([name]), timeout=QUICK)
        return engine.parse_container(json.loads(answer.out)[0]) if answer.code == 0 else None

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        ids = commands.run(self.engine.list_ids(labels), timeout=QUICK).out.split()
        return self._inspect(ids[::-1])

    def probe(self, container: Container, check: Check) -> str:
        if check.command:
            return self._probe_command(container, check)
        if check.path and container.address:
            return probe_http(f"http://{container.address}{check.path}", check.timeout)
        if check.path or check.tcp:
            return probe_tcp(container.address, check.timeout) if container.address else NO_PORT
        return probe_tcp(container.address, check.timeout) if container.address else ""

    def last_lines(self, container: Container, lines: int) -> str:
        said = commands.attempt(self.engine.logs(container.id, lines), timeout=QUICK)
        return CONTROL.sub("", said.out + said.err).strip()

    def exit_code(self, container: Container) -> int | None:
        answer = commands.attempt(self.engine.deaths(container.id), timeout=QUICK)
        return engine.parse_exit_code(answer.out) if answer.code == 0 else None

    def remove(self, container: Container, *, grace: int) -> None:
        if container.running and grace:
            commands.attempt(self.engine.stop(container.id, grace), timeout=grace + QUICK)
        removed = commands.attempt(self.engine.remove(container.id), timeout=QUICK)
        if removed.code != 0 and self.find(container.id):
            raise CommandFailed(self.engine.remove(container.id), removed.code, removed.err)
        if network := container.labels.get("network"):
            networks.remove_unused(self.engine, network)

    def guard(self) -> None:
        networks.guard(self.engine)

    def _run(self, wanted: Wanted) -> None:
        """A port that is free now may be taken a moment later: then another is tried."""
        env = engine.env_file(wanted.env)
        for tries_left in reversed(range(PORT_TRIES)):
            try:
                argv = self.engine.run(wanted, host_port=_free_port())
                commands.run(argv, timeout=QUICK, stdin=env)
            except CommandFailed as error:
                # An engine that could not start a container keeps it, and its name with it.
                commands.attempt(self.engine.remove(wanted.name), timeout=QUICK)
                if not tries_left or "address already in use" not in str(error):
                    raise
            else:
                return

    def _inspect(self, ids: list[str]) -> list[Container]:
        if not ids:
            return []
        answer = commands.attempt(self.engine.inspect(ids), timeout=QUICK)
        # One that was removed since it was listed makes the command fail; the others are there.
        raws = json.loads(answer.out or "[]")
        if not raws and len(ids) == 1:
            raise CommandFailed(self.engine.inspect(ids), answer.code, answer.err)
        return [engine.parse_container(raw) for raw in raws]

    def _has(self, reference: str) -> bool:
        return commands.attempt(self.engine.inspect_images([reference]), timeout=QUICK).code == 0

    def _layers(self) -> set[str]:
        """Diff ids of all layers of all images here, to tell what a pull moves. Podman's list
        fails while somebody removes an image, which is no reason not to deploy."""
        listed = commands.attempt(self.engine.list_images(), timeout=QUICK)
        images = list(set(listed.out.split()))
        if not images:
            return set()
        answer = commands.attempt(self.engine.inspect_images(images), timeout=QUICK)
        return {
            layer
            for image in json.loads(answer.out or "[]")
            for layer in (image.get("RootFS") or {}).get("Layers") or ()
        }

    def _probe_command(self, container: Container, check: Check) -> str:
        argv = self.engine.execute(container.id, check.command)
        try:
            result = commands.attempt(argv, timeout=check.timeout)
        except CommandTimedOut:
            return f"the HEALTHCHECK did not end within {check.timeout:g} s"
        if result.code == 0:
            return ""
        words = CONTROL.sub("", result.out + result.err).strip()[-300:]
        return f"the HEALTHCHECK ended with exit code {result.code}" + (
            f": {words}" if words else ""
        )


@cache
def find_engine() -> Engine:
    """Podman if it works here, else docker; asked once. Raises NoEngine, with what each said."""
    said = []
    for program in ("podman", "docker"):
        if not commands.found(program):
            said.append(f"{program} is not installed")
            continue
        candidate = engine.here(program)
        answer = commands.attempt(candidate.answers(), timeout=QUICK)
        if answer.code == 0:
            return candidate
        said.append(f"{program} does not work: {answer.err.strip()[-200:]}")
    raise NoEngine(f"No container engine works on this host ({'; '.join(said)}). Install podman.")


def probe_http(url: str, timeout: float) -> str:
    """A server that answers anything below 500 is up: not every application has a page at /."""
    path = urlsplit(url).path
    late = f"GET {path} had no answer within {timeout:g} s"
    try:
        status = asyncio.run(asyncio.wait_for(_status(url), timeout))
    except (TimeoutError, httpx.TimeoutException):
        return late
    except httpx.HTTPError:
        return "nothing answers on its port"
    return f"GET {path} answered {status}" if status >= 500 else ""


async def _status(url: str) -> int:
    """httpx's own time-outs begin anew with each byte: the caller bounds the whole."""
    async with (
        httpx.AsyncClient(timeout=QUICK, trust_env=False) as client,
        client.stream("GET", url) as response,
    ):
        return response.status_code


def probe_tcp(address: str, timeout: float) -> str:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout).close()
    except OSError:
        return "nothing answers on its port"
    return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
