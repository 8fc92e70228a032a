"""What a deployed container may reach and whom it runs as, on a real engine."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ciserver.releases.targets import Target, commands, firewall, networks, open_target
from ciserver.releases.targets.errors import TargetError
from ciserver.releases.targets.images import Location, read_facts
from ciserver.releases.targets.local import LocalTarget
from ciserver.releases.targets.spec import Container, Place, Wanted
from tests.ciserver.releases.conftest import BUSYBOX, wait_for
from tests.ciserver.releases.test_targets import PRIVATE, PUBLIC
from tests.home import HOME
from tests.machines import Machine

pytestmark = pytest.mark.root
OUTSIDE, METADATA = "198.51.100.2", "169.254.169.254"
WORLD = f"{OUTSIDE} 80"
# In a machine of its own: another beyond it, which has the address of a cloud's metadata.
BEYOND = f"""
set -e
ip netns add beyond
ip link add out type veth peer name eth0 netns beyond
ip addr add 198.51.100.1/30 dev out && ip link set out up
ip route add {METADATA} dev out
ip -n beyond addr add {OUTSIDE}/30 dev eth0 && ip -n beyond addr add {METADATA}/32 dev eth0
ip -n beyond link set eth0 up && ip -n beyond route add default via 198.51.100.1
setsid ip netns exec beyond /bin/busybox httpd -f -p 80 >/dev/null 2>&1 &
"""
BASE = 0x10000000 + 60000 * 65536
MINE = f"gantry-test-{os.getpid()}"


class Ship:
    """Containers of two environments of two projects."""

    def __init__(self, target: Target, registry: Any) -> None:
        self.target = target
        self.location = location = Location(registry.address, "isolation")
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

    def reaches(self, container: Container, *places: str) -> set[str]:
        """Those of ``places`` (HOST PORT) that take a connection from inside."""
        tried = [f"(/bin/busybox nc -w 2 {one} < /dev/null && echo {one}) &" for one in places]
        line = " ".join([*tried, "wait"])
        argv = self.target.engine.execute(container.id, ["/bin/sh", "-c", line])
        return set(self.target.machine.run(argv, timeout=20).out.splitlines())

    def address_of(self, container: Container) -> str:
        words = ["/bin/busybox", "ip", "-4", "-o", "addr"]
        asked = self.target.engine.execute(container.id, words)
        listed = self.target.machine.run(asked, timeout=20).out
        return next(line.split()[3] for line in listed.splitlines() if "eth0" in line)[:-3]

    def clear(self) -> None:
        for container in self.target.containers({"installation": MINE}):
            self.target.remove(container, grace=0)
        remove = [self.target.engine.program, "image", "rm", "--force", self.reference]
        self.target.machine.attempt(remove, timeout=30)


@pytest.fixture
def ship(registry: Any) -> Iterator[Ship]:
    opened = Ship(LocalTarget.here(HOME / "run"), registry)
    try:
        yield opened
    finally:
        opened.clear()


@pytest.fixture
def both(ships: list[Machine], registry: Any) -> Iterator[list[Ship]]:
    """One machine as two hosts: by its podman and by its docker."""
    ships[0].allow(PUBLIC)
    with contextlib.ExitStack() as stack:
        found = []
        for program in ("podman", "docker"):
            place = Place(
                name=f"by-{program}",
                kind="ssh",
                address=f"root@{ships[0].ip}",
                private_key=lambda: PRIVATE,
                engine=program,
            )
            target = stack.enter_context(open_target(place, run=HOME / "run"))
            assert target.engine.program == program
            found.append(Ship(target, registry))
            stack.callback(found[-1].clear)
        yield found


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
    neighbour = ship.address_of(two)
    assert _reached(neighbour, 8080)
    port = int(two.address.rpartition(":")[2])
    listening = [str(BUSYBOX), "httpd", "-f", "-p", "0.0.0.0:18765"]
    gateway = f"{ship.address_of(one).rpartition('.')[0]}.1"
    metadata = f"{METADATA} 80"
    machine = [f"{gateway} 18765", "198.51.100.1 18765", f"{gateway} {port}"]
    every = [WORLD, metadata, f"{neighbour} 8080", *machine]
    with _serving(listening):
        wait_for(lambda: _reached("127.0.0.1", 18765))
        assert _reached(gateway, 18765)
        assert ship.reaches(one, *every) == {WORLD}
        # Else the refusal above proves nothing. Other tests load the machine's table, too.
        wait_for(lambda: _without_rules(ship, one, every) > {WORLD, metadata, machine[0]})
        ship.target.guard()
        assert ship.reaches(one, *every) == {WORLD}


def test_two_engines_of_one_machine_do_not_take_each_others_rules_away(
    both: list[Ship], ships: list[Machine]
) -> None:
    ships[0].sh(BEYOND)
    try:
        started = [(one, one.start(number)) for number, one in enumerate(both)]
        assert _reached_by(started) == [{WORLD}, {WORLD}], "docker loaded its rules last"
        ships[0].sh(f"nft delete table {firewall.TABLE}")
        assert all(one > {WORLD, f"{METADATA} 80"} for one in _reached_by(started))
        for one in reversed(both):
            one.target.guard()
        assert _reached_by(started) == [{WORLD}, {WORLD}], "podman did"
        docker, container = started.pop()
        docker.target.remove(container, grace=0)
        assert _reached_by(started) == [{WORLD}]
    finally:
        ships[0].sh("ip link del out; ip netns pids beyond | xargs -r kill; ip netns del beyond")


def test_a_users_container_reaches_the_machine_as_little(
    ships: list[Machine], registry: Any
) -> None:
    """What it sends leaves by a process of the user's, as if that had connected."""
    machine = ships[1]
    machine.allow(PUBLIC, "deploy")
    machine.sh(BEYOND)
    machine.sh("ip link add br9 type bridge && ip addr add 203.0.113.1/24 dev br9")
    place = Place(
        name="users", kind="ssh", address=f"deploy@{machine.ip}", private_key=lambda: PRIVATE
    )
    with contextlib.ExitStack() as stack:
        stack.callback(machine.sh, "pkill -u deploy; ip link del br9; ip link del out; true")
        stack.callback(machine.sh, "ip netns pids beyond | xargs -r kill; ip netns del beyond")
        target = stack.enter_context(open_target(place, run=HOME / "run"))
        users = Ship(target, registry)
        stack.callback(users.clear)
        started = [(users, users.start(number)) for number in (1, 2)]
        assert _reached_by(started, f"{machine.ip} 22", "203.0.113.1 22") == [{WORLD}, {WORLD}]
        table = ["nft", "delete", "table", *firewall.TABLE.split()]
        target.machine.run(["podman", "unshare", "--rootless-netns", *table], timeout=30)
        [now, _] = _reached_by(started, f"{machine.ip} 22", "203.0.113.1 22")
        assert now > {WORLD, f"{machine.ip} 22", "203.0.113.1 22"}, "it is there to be reached"


def test_a_users_container_is_guarded_though_the_last_one_took_the_rules_with_it(
    ships: list[Machine], registry: Any
) -> None:
    machine = ships[1]
    machine.allow(PUBLIC, "deploy")
    place = Place(
        name="last", kind="ssh", address=f"deploy@{machine.ip}", private_key=lambda: PRIVATE
    )
    with contextlib.ExitStack() as stack:
        stack.callback(machine.sh, "pkill -u deploy; true")
        target = stack.enter_context(open_target(place, run=HOME / "run"))
        users = Ship(target, registry)
        stack.callback(users.clear)
        first = users.start(1)
        target.pull(users.facts, users.location, lambda: None, network=f"{MINE}-1")
        target.remove(first, grace=0, alone=False)
        again = users.start(1)
        assert networks.is_guarded(target.machine, target.engine, f"{MINE}-1")
        stop = [target.engine.program, "stop", "--time=0", again.id]
        target.machine.run(stop, timeout=30)
        target.resume(again)
        assert networks.is_guarded(target.machine, target.engine, f"{MINE}-1")


@pytest.mark.parametrize("bridge", ["new", "of one that went"])
def test_one_machine_that_is_two_hosts_by_our_record_has_all_its_networks_guarded(
    ships: list[Machine], monkeypatch: pytest.MonkeyPatch, bridge: str
) -> None:
    """Two workers, neither of which waits for the other: one has looked what there is, the other
    makes a network, and the first one loads what it knows."""
    ships[2].allow(PUBLIC)
    places = [
        Place(name=name, kind="ssh", address=f"root@{ships[2].ip}", private_key=lambda: PRIVATE)
        for name in ("one", "two")
    ]
    with contextlib.ExitStack() as stack:
        first, second = [
            stack.enter_context(open_target(place, run=HOME / "run")) for place in places
        ]
        names = [f"{MINE}-{number}" for number in (1, 2)]
        for target, name in zip((first, second), names, strict=True):
            stack.callback(networks.remove_unused, target.machine, target.engine, name)
        networks.guard(first.machine, first.engine)  # what other tests left is gone
        if bridge == "of one that went":
            went = [f"{MINE}-{number}" for number in (8, 9)]
            for name in went:
                networks.ensure(first.machine, first.engine, name)
            for name in went:
                first.machine.run(first.engine.remove_network(name), timeout=20)
        run, loaded = first.machine.run, []

        def late(argv: Sequence[str], **more: Any) -> Any:
            if "--file" in argv and not loaded:
                loaded.append(argv)
                networks.ensure(second.machine, second.engine, names[1])
            return run(argv, **more)

        monkeypatch.setattr(first.machine, "run", late)
        networks.ensure(first.machine, first.engine, names[0])
        assert loaded
        guarded = [networks.is_guarded(first.machine, first.engine, name) for name in names]
        assert guarded == [True, True]


def test_a_bridge_that_outlived_its_network_does_not_vouch_for_the_next_one(
    ships: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are killed twice: when a network was removed, and when it was made again."""
    ships[2].allow(PUBLIC)
    place = Place(
        name="twice", kind="ssh", address=f"root@{ships[2].ip}", private_key=lambda: PRIVATE
    )
    name, other = f"{MINE}-1", f"{MINE}-2"
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(open_target(place, run=HOME / "run"))
        machine, engine = target.machine, target.engine
        networks.ensure(machine, engine, name)
        stack.callback(networks.remove_unused, machine, engine, name)
        machine.run(engine.remove_network(name), timeout=30)
        machine.run(engine.create_network(other), timeout=30)  # has the bridge's number now
        stack.callback(networks.remove_unused, machine, engine, other)
        assert networks.is_guarded(machine, engine, name), "by the bridge that is left"
        run = machine.run

        def killed(argv: Sequence[str], **more: Any) -> Any:
            done = run(argv, **more)
            if "create" in argv:
                raise ZeroDivisionError
            return done

        monkeypatch.setattr(machine, "run", killed)
        with pytest.raises(ZeroDivisionError):
            networks.ensure(machine, engine, name)
        monkeypatch.undo()
        assert name in machine.run(engine.list_networks(), timeout=30).out
        assert not networks.is_guarded(machine, engine, name)


def _without_rules(ship: Ship, container: Container, places: list[str]) -> set[str]:
    subprocess.run(["nft", "delete", "table", *firewall.TABLE.split()], check=False)
    return ship.reaches(container, *places)


def _reached_by(started: list[tuple[Ship, Container]], *more: str) -> list[set[str]]:
    """What each reaches of the world, metadata, the machine, ``more`` and all the others."""
    at = [ship.address_of(container) for ship, container in started]
    every = [WORLD, f"{METADATA} 80", "198.51.100.1 22", *more]
    every += [f"{address.rpartition('.')[0]}.1 22" for address in at]
    return [
        ship.reaches(container, *every, *(f"{other} 8080" for other in at if other != own))
        for (ship, container), own in zip(started, at, strict=True)
    ]


def test_one_that_cannot_be_guarded_goes_but_not_one_that_ran_before(
    ship: Ship, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TargetError("nft does not answer")

    before = ship.start(1)
    monkeypatch.setattr(networks, "guard_again", fail)
    for number in (1, 2):
        with pytest.raises(TargetError, match="nft does not answer"):
            ship.start(number)
    assert [one.id for one in ship.target.containers({"installation": MINE})] == [before.id]


def test_a_network_goes_with_its_last_container(ship: Ship) -> None:
    ship.target.remove(ship.start(1), grace=0)
    engine = ship.target.engine
    assert f"{MINE}-1" not in commands.attempt(engine.list_networks(), timeout=20).out
