"""What a deployed container may reach and whom it runs as, on a real engine."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ciserver.releases.targets import commands, firewall
from ciserver.releases.targets.images import Location, read_facts
from ciserver.releases.targets.local import LocalTarget
from ciserver.releases.targets.spec import Container, Wanted
from tests.ciserver.releases.conftest import BUSYBOX, wait_for
from tests.home import HOME

pytestmark = pytest.mark.root
OUTSIDE, METADATA = "198.51.100.2", "169.254.169.254"
BASE = 0x10000000 + 60000 * 65536
MINE = f"gantry-test-{os.getpid()}"


class Ship:
    """Containers of two environments of two projects."""

    def __init__(self, registry: Any) -> None:
        self.target = LocalTarget.here(HOME / "run")
        location = Location(registry.address, "isolation")
        self.facts = read_facts(location, registry.push("isolation", page="hi"), token=None)
        self.target.pull(self.facts, location, lambda: None)
        self.reference = f"{registry.address}/isolation@{self.facts.digest}"

    def start(self, number: int) -> Container:
        network = f"{MINE}-{number}"
        wanted = Wanted(
            name=f"{network}-c",
            reference=self.reference,
            port=8080,
            memory=64 << 20,
            cpus=1,
            pids=50,
            network=network,
            id_base=BASE + number * 65536,
            labels={"installation": MINE, "network": network},
        )
        self.target.start(wanted)
        started = self.target.find(wanted.name)
        assert started is not None
        return started

    def connect(self, container: Container, host: str, port: int) -> str:
        """Empty if a connection from inside was taken, else what the shell said."""
        line = f"/bin/busybox nc -w 3 {host} {port} < /dev/null"
        argv = self.target.engine.execute(container.id, ["/bin/sh", "-c", line])
        done = commands.attempt(argv, timeout=20)
        return "" if done.code == 0 else done.err.strip() or "silence"

    def address_of(self, container: Container) -> str:
        listed = commands.run(
            ["nsenter", f"--net=/proc/{container.pid}/ns/net", "ip", "-4", "-o", "addr"], timeout=20
        ).out
        return next(line.split()[3] for line in listed.splitlines() if "eth0" in line)[:-3]


@pytest.fixture
def ship(registry: Any) -> Iterator[Ship]:
    opened = Ship(registry)
    try:
        yield opened
    finally:
        for container in opened.target.containers({"installation": MINE}):
            opened.target.remove(container, grace=0)
        program = opened.target.engine.program
        commands.attempt([program, "image", "rm", "--force", opened.reference], timeout=30)


@pytest.fixture
def world() -> Iterator[None]:
    """A machine outside, which answers on an address of the internet and on the metadata one."""
    name = f"gtw{os.getpid()}"
    with contextlib.ExitStack() as stack:
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "del", name)
        _ip("link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("addr", "add", "198.51.100.1/30", "dev", f"v{name}")
        _ip("link", "set", f"v{name}", "up")
        _ip("route", "add", METADATA, "dev", f"v{name}")
        for address in (f"{OUTSIDE}/30", f"{METADATA}/32"):
            _ip("-n", name, "addr", "add", address, "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "route", "add", "default", "via", "198.51.100.1")
        argv = ["ip", "netns", "exec", name, str(BUSYBOX), "httpd", "-f", "-p", "80"]
        stack.enter_context(_serving(argv))
        yield


@contextlib.contextmanager
def _serving(argv: list[str]) -> Iterator[None]:
    child = subprocess.Popen(argv)
    try:
        yield
    finally:
        child.terminate()
        child.wait(10)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _reached(host: str, port: int) -> bool:
    argv = [str(BUSYBOX), "nc", "-w", "2", host, str(port)]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode == 0


def test_each_project_runs_as_ids_of_its_own_and_without_privileges(ship: Ship) -> None:
    for number in (1, 2):
        pid = ship.start(number).pid
        assert Path(f"/proc/{pid}/uid_map").read_text().split() == [
            "0",
            str(BASE + number * 65536),
            "65536",
        ]
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        assert status["Uid"].split()[0] == str(BASE + number * 65536)
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapBnd"], 16) & (1 << 21 | 1 << 12 | 1 << 13 | 1 << 27) == 0


def test_a_container_reaches_the_world_but_neither_metadata_nor_host_nor_neighbours(
    ship: Ship, world: None
) -> None:
    one, two = ship.start(1), ship.start(2)
    wait_for(lambda: ship.target.probe(two, ship.facts.check) == "")
    wait_for(lambda: _reached(METADATA, 80))
    assert ship.connect(one, OUTSIDE, 80) == ""
    assert ship.connect(one, METADATA, 80) != ""
    neighbour = ship.address_of(two)
    assert _reached(neighbour, 8080)
    assert ship.connect(one, neighbour, 8080) != ""
    port = int(two.address.rpartition(":")[2])
    listening = [str(BUSYBOX), "httpd", "-f", "-p", "0.0.0.0:18765"]
    gateway = f"{ship.address_of(one).rpartition('.')[0]}.1"
    with _serving(listening):
        wait_for(lambda: _reached("127.0.0.1", 18765))
        assert _reached(gateway, 18765)
        for host in (gateway, "198.51.100.1"):
            assert ship.connect(one, host, 18765) != "", host
    assert ship.connect(one, gateway, port) != ""
    subprocess.run(["nft", "delete", "table", *firewall.TABLE.split()], check=True)
    assert ship.connect(one, METADATA, 80) == "", "else the refusal above proves nothing"
    ship.target.guard()
    assert ship.connect(one, METADATA, 80) != ""


def test_a_network_goes_with_its_last_container(ship: Ship) -> None:
    ship.target.remove(ship.start(1), grace=0)
    engine = ship.target.engine
    assert f"{MINE}-1" not in commands.attempt(engine.list_networks(), timeout=20).out
