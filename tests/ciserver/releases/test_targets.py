"""One contract for every kind of host: this machine and others by ssh, podman, rootless, docker."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ciserver.releases.targets import Target, commands, engine, images, open_target
from ciserver.releases.targets.images import Location
from ciserver.releases.targets.local import LocalTarget
from ciserver.releases.targets.machine import Here
from ciserver.releases.targets.proxy import Proxy
from ciserver.releases.targets.spec import Check, Container, ImageFacts, Place, Wanted
from tests.ciserver.releases.conftest import free_port, wait_for
from tests.home import HOME
from tests.machines import Machine

pytestmark = pytest.mark.root
MINE = f"gantry-test-{os.getpid()}"
SHOWS = {
    "command": "echo no; printf h; /bin/busybox sleep 0.1; echo i; trap 'exit 0' TERM;"
    " /bin/busybox httpd -f -p 8080 -h /www & wait"
}
KEY = Ed25519PrivateKey.generate()
PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.OpenSSH,
    serialization.NoEncryption(),
).decode()
PUBLIC = (
    KEY.public_key()
    .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    .decode()
)


@pytest.fixture(scope="module")
def host(ships: list[Machine]) -> Machine:
    """A machine with podman, for root and for a user, and docker."""
    for user in ("root", "deploy"):
        ships[0].allow(PUBLIC, user)
    return ships[0]


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A docker daemon of this machine, beside its own if it has one, that is about to start; the
    socket's address."""
    folder = tmp_path_factory.mktemp("docker")
    address = f"unix://{folder}/docker.sock"
    places = [f"--{name}={folder}/{name}" for name in ("data-root", "exec-root")]
    quiet = ["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=overlay2"]
    files = [f"--pidfile={folder}/pid", f"--host={address}", f"--group={os.getgid()}"]
    driver = "--exec-opt=native.cgroupdriver=cgroupfs"
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            ["dockerd", *places, *quiet, *files, driver, f"--cgroup-parent={MINE}"],
            stdout=log,
            stderr=log,
        )
    try:
        yield address
    finally:
        daemon.terminate()
        daemon.wait(30)
        for controller in Path("/sys/fs/cgroup").iterdir():
            for place in (controller / MINE, Path("/sys/fs/cgroup") / MINE):
                with contextlib.suppress(OSError):
                    place.rmdir()


@pytest.fixture(scope="module")
def local_docker(dockerd: str) -> str:
    """The same, once it answers."""
    asked = ["docker", "-H", dockerd, "version"]
    wait_for(lambda: commands.attempt(asked, timeout=30).code == 0, 60)
    return dockerd


KINDS = ["local podman", "local docker", "ssh podman", "ssh rootless podman", "ssh docker"]


@pytest.fixture(params=KINDS)
def opened(
    request: Any, caddy_socket: Path, monkeypatch: Any, dockerd: str, launch: Any
) -> Iterator[Callable[[], AbstractContextManager[Target]]]:
    """``dockerd`` and ``launch`` go on starting while this machine's podman is tested."""
    kind = request.param
    if kind == "local podman":
        yield lambda: open_target(Place(name="here", kind="local"), run=HOME / "run")
        return
    if kind == "local docker":
        monkeypatch.setenv("DOCKER_HOST", request.getfixturevalue("local_docker"))
        docker = LocalTarget(engine.choose("docker", Here().facts), Proxy(caddy_socket))
        yield lambda: contextlib.nullcontext(docker)
        return
    there: Machine = request.getfixturevalue("host")
    if kind == "ssh docker":
        there.hide("podman")
    place = Place(
        name="there",
        kind="ssh",
        address=f"{'deploy' if 'rootless' in kind else 'root'}@{there.ip}",
        private_key=lambda: PRIVATE,
    )
    try:
        yield lambda: open_target(place, run=HOME / "run")
    finally:
        there.show()


@dataclass
class Ship:
    """An image in the registry, and what it takes to run it."""

    registry: Any
    location: Location

    def image(self, page: str, **config: Any) -> ImageFacts:
        digest = self.registry.push("contract", page=page, **(SHOWS | config))
        return images.read_facts(self.location, digest, token=None)

    def wanted(self, image: ImageFacts, name: str = "c") -> Wanted:
        return Wanted(
            name=f"{MINE}-{name}",
            reference=f"{self.location.registry}/{self.location.name}@{image.digest}",
            port=image.port,
            memory=64 << 20,
            cpus=1,
            pids=50,
            env={"GREETING": "hello $x # there"},
            network=f"{MINE}-net",
            labels={"installation": MINE, "network": f"{MINE}-net"},
        )


@pytest.fixture
def ship(registry: Any) -> Ship:
    return Ship(registry, Location(registry.address, "contract"))


def healthy(target: Target, container: Container, check: Check) -> str:
    """What was wrong at last, after some tries."""
    wrong = "never tried"
    deadline = time.monotonic() + 10
    while wrong and time.monotonic() < deadline:
        wrong = target.probe(container, check)
        time.sleep(0.05)
    return wrong


def test_a_container_is_started_checked_served_stopped_and_removed(
    opened: Callable[[], AbstractContextManager[Target]], ship: Ship
) -> None:
    first, second = ship.image("one"), ship.image("two")
    port = free_port()
    with opened() as target:
        _is_streamed(target)
        try:
            one = _is_started_once(target, ship, first)
            _is_probed(target, one)
            _is_served(target, one, port, "one")
            known = [first.config_digest]
            moved = target.pull(second, ship.location, lambda: None, brought=known)
            assert 0 < moved < 2000, "only the layer that changed"
            two = target.start(ship.wanted(second, "d"))
            target.remove_images({first.config_digest})
            assert _has(target, first), "what has a container stays"
            assert healthy(target, two, Check(path="/")) == ""
            _is_served(target, two, port, "two")
            assert {c.name for c in target.containers({"installation": MINE})} == {
                one.name,
                two.name,
            }
        finally:
            target.proxy.forget(MINE)
            for container in target.containers({"installation": MINE}):
                target.remove(container, grace=5)
        assert target.exit_code(two) in {0, None}, "it was asked to end before it was removed"
        assert target.containers({"installation": MINE}) == []
        assert target.find(one.name) is None
        listed = target.machine.run(target.engine.list_networks(), timeout=20).out
        assert f"{MINE}-net" not in listed
        assert _has(target, second)
        target.remove_images({first.config_digest, second.config_digest})
        assert not _has(target, first)
        assert not _has(target, second)


def _has(target: Target, image: ImageFacts) -> bool:
    return target.images([image.config_digest]) == {image.config_digest}


def _is_streamed(target: Target) -> None:
    """Both ways, without a terminal that would change bytes; the caller ends it."""
    stream, pipe = target.machine.stream, subprocess.PIPE
    given = bytes(range(256)) * 1000
    copied = stream(["cat"], stdin=pipe, stdout=pipe)
    assert copied.communicate(given, timeout=30) == (given, b"")
    assert copied.returncode == 0
    failed = stream(["sh", "-c", "echo 'no $x' >&2; exit 3"], stdin=subprocess.DEVNULL, stdout=pipe)
    assert failed.communicate(timeout=30) == (b"", b"no $x\n")
    assert failed.returncode == 3
    followed = stream(["sh", "-c", "echo up; sleep 5"], stdin=subprocess.DEVNULL, stdout=pipe)
    assert followed.stdout is not None
    assert followed.stdout.readline() == b"up\n", "as it is said, not at the end"
    followed.kill()
    followed.communicate(timeout=30)


def _is_started_once(target: Target, ship: Ship, image: ImageFacts) -> Container:
    network = ship.wanted(image).network
    moved = target.pull(image, ship.location, lambda: None, network=network)
    listed = target.machine.run(target.engine.list_networks(), timeout=20).out
    assert network in listed, "made while the layers travelled"
    assert moved >= image.layers[-1].size, "an earlier test may have brought the others"
    known = [image.config_digest]
    assert target.pull(image, ship.location, lambda: None, brought=known) == 0
    target.start(ship.wanted(image))
    started = target.find(ship.wanted(image).name)
    assert started is not None
    assert started.running
    assert started.runs(image), "what runs is what was recorded"
    again = target.start(ship.wanted(image))
    assert again.id == started.id
    return started


def _is_probed(target: Target, container: Container) -> None:
    assert healthy(target, container, Check(path="/")) == ""
    assert target.probe(container, Check(tcp=True)) == ""
    said = ("/bin/sh", "-c", 'echo "$GREETING"; exit 3')
    assert target.probe(container, Check(command=said)).endswith(
        "ended with exit code 3: hello $x # there"
    )
    assert target.probe(container, Check(command=("/bin/sh", "-c", "true"))) == ""
    slow = target.probe(container, Check(command=("/bin/busybox", "sleep", "9"), timeout=0.5))
    assert "did not end within 0.5 s" in slow
    assert target.last_lines(container, 1) == "hi", "a line written in pieces is whole"
    target.machine.run(target.engine.stop(container.id, 1), timeout=30)
    assert target.probe(container, Check(path="/")) == "nothing answers on its port"
    assert target.probe(container, Check(tcp=True)) == "nothing answers on its port"
    # Podman leaves an exit code of 0 out of its events.
    assert target.exit_code(container) in {0, None}, "it ended when it was asked to"
    stopped = target.find(container.name)
    assert stopped is not None
    assert not stopped.running
    assert target.resume(stopped).running


def _is_served(target: Target, container: Container, port: int, page: str) -> None:
    now = target.find(container.name)
    assert now is not None
    assert healthy(target, now, Check(path="/")) == ""
    target.proxy.serve(MINE, port=port, upstream=now.address)
    assert target.proxy.drain(MINE, seconds=5)
    assert target.proxy.routes()[MINE] == now.address
    place = getattr(target.machine, "place", None)
    host = place.address.rpartition("@")[2] if place else "127.0.0.1"
    assert httpx.get(f"http://{host}:{port}/", trust_env=False, verify=False).text == page
