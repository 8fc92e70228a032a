"""EGRESS: out to the internet, and nowhere else. The internet is a namespace of our own."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runtime.errors import HostError, SpecError
from runtime.network import (
    directory,
    egress,
    firewall,
    later,
    neighbours,
    open_network,
    resolvers,
    subnets,
)
from runtime.network.firewall import Allowed, parse_allow
from runtime.snapshots import LowerDir
from runtime.spec import Network
from runtime.state import StateDirectory
from tests.runtime.conftest import Sandboxes, mounts, reap_here
from tests.together import together

PUBLIC = "45.45.45.45"
PRIVATE = "10.45.45.45"
NAME = f"gtest{os.getpid() % 10000}"


def sh(script: str) -> str:
    return subprocess.run(
        ["sh", "-ec", script], check=True, capture_output=True, text=True, timeout=20
    ).stdout


@pytest.fixture
def internet(busybox: LowerDir) -> Iterator[None]:
    """A namespace with a public and a private address, each with a server on port 8000."""
    # Every test process gives the host the same routes: one at a time.
    with Path("/run/gantry-test-internet").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield from _opened(busybox)


def _opened(busybox: LowerDir) -> Iterator[None]:
    cable = f"g{os.getpid() % 100000}"
    box = str(busybox.path / "bin/busybox")
    server: subprocess.Popen[bytes] | None = None
    try:
        sh(f"""
        ip netns add {NAME}
        ip link add {cable} type veth peer name world netns {NAME}
        ip addr add 172.31.254.1/30 dev {cable}; ip link set {cable} up
        ip -n {NAME} addr add 172.31.254.2/30 dev world; ip -n {NAME} link set world up
        ip -n {NAME} link set lo up
        ip -n {NAME} addr add {PUBLIC}/32 dev lo; ip -n {NAME} addr add {PRIVATE}/32 dev lo
        ip route add {PUBLIC} via 172.31.254.2; ip route add {PRIVATE} via 172.31.254.2
        """)
        server = subprocess.Popen(
            ["ip", "netns", "exec", NAME, box, "nc", "-ll", "-p", "8000", "-e", "echo", "hello"]
        )
        sh(f'until [ "$(busybox nc -w 1 {PUBLIC} 8000 </dev/null)" = hello ]; do sleep 0.02; done')
        yield
    finally:
        if server:
            server.kill()
            server.wait()
        sh(f"ip link delete {cable} || true; ip netns delete {NAME}")


TRY = """
try() { out=$(nc -w 1 $1 $2 </dev/null 2>/dev/null); [ "$out" = hello ] && echo "$1 reached"; }
"""


@pytest.mark.root
def test_egress_reaches_the_public_internet_and_nothing_private(
    sandboxes: Sandboxes, internet: None
) -> None:
    listener = socket.create_server(("0.0.0.0", 0))
    port = listener.getsockname()[1]
    reached: list[object] = []

    def accept() -> None:
        try:
            while True:
                reached.append(listener.accept())
        except OSError:
            return

    threading.Thread(target=accept, daemon=True).start()
    own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    addresses = " ".join(sorted({*map(str, own), "10.211.0.1", "127.0.0.1", "172.31.254.1"}))
    with closing(listener):
        ran = sandboxes.sh(
            f"{TRY} try {PUBLIC} 8000; try {PRIVATE} 8000; try 172.31.254.2 8000\n"
            f"for a in {addresses} $(ip route | sed -n 's/default via //p' | cut -d' ' -f1)\n"
            f"do nc -w 2 $a {port} </dev/null 2>/dev/null && echo $a; done; true",
            network=Network.EGRESS,
        )
    assert ran.out == f"{PUBLIC} reached\n"
    assert reached == []


@pytest.mark.root
def test_what_is_allowed_is_reached_and_its_other_ports_are_not(
    sandboxes: Sandboxes, internet: None
) -> None:
    with open_network(
        Network.EGRESS, state=sandboxes.state, allow=[f"{PRIVATE}:8000", "172.31.254.2:9"]
    ) as network:
        assert network is not None and network.netns is not None
        ran = sandboxes.sh(
            f"{TRY} try {PRIVATE} 8000; try 172.31.254.2 8000",
            network=Network.EGRESS,
            netns=network.netns,
        )
    assert ran.out == f"{PRIVATE} reached\n"


@pytest.mark.root
def test_two_networks_do_not_see_each_other_and_one_network_is_shared(sandboxes: Sandboxes) -> None:
    up = threading.Event()
    with (
        open_network(Network.EGRESS, state=sandboxes.state) as one,
        open_network(Network.EGRESS, state=sandboxes.state) as two,
    ):
        assert one and one.netns and two and two.netns
        address = sandboxes.sh(
            "ip -4 addr show eth0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p'", netns=one.netns
        ).out.strip()
        serving = threading.Thread(
            target=sandboxes.sh,
            args=("echo; nc -ll -p 8000 -e echo hello & sleep 2",),
            kwargs={"netns": one.netns, "on_output": lambda s, d: up.set()},
        )
        serving.start()
        assert up.wait(10)
        friend = sandboxes.sh(f"sleep 0.2; {TRY} try {address} 8000", netns=one.netns)
        stranger = sandboxes.sh(f"{TRY} try {address} 8000", netns=two.netns)
        serving.join()
    assert friend.out == f"{address} reached\n"
    assert stranger.out == ""


@pytest.mark.root
def test_its_own_settings_cannot_be_changed_from_inside(sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh(
        "ip addr add 10.9.9.9/8 dev eth0; ip link set eth0 down; ip route del default;"
        "ip link add x type dummy; ls /sys/class/net | wc -l",
        network=Network.EGRESS,
    )
    assert ran.out == "2\n"
    assert ran.err.count("Operation not permitted") >= 4


@pytest.mark.root
def test_a_closed_network_leaves_no_device_mount_or_rule(state: StateDirectory) -> None:
    with open_network(Network.EGRESS, state=state) as network:
        assert network is not None and network.netns is not None
        index, device = next(
            (line.split(":")[0], line.split(":")[1].split("@")[0].strip())
            for line in sh("ip -o link").splitlines()
            if "gtw" in line and is_peer_of(line, network.netns)
        )
        group = Path(f"/sys/class/net/{device}/netdev_group").read_text().strip()
        assert f"{group} : jump policy-{group}" in sh("nft list table inet gantry")
    later.settle()
    assert f"\n{index}: " not in sh("ip -o link")  # its name may be another network's by now
    assert not [line for line in mounts() if str(state.root) in line]
    assert list(state.networks_dir.iterdir()) == []


def is_peer_of(line: str, netns: Path) -> bool:
    """Whether the device of an ``ip -o link`` line is the host's end of the network's cable."""
    index = line.split(":", maxsplit=1)[0]
    inside = sh(f"nsenter --net={netns} ip -o link show eth0")
    return f"eth0@if{index}:" in inside


def test_rules_let_only_the_allowed_through() -> None:
    allowed = [*parse_allow("10.0.0.0/8:53"), *parse_allow("1.2.3.4")]
    lines = firewall.script({3: [rule for each in allowed for rule in each.rules()]}).splitlines()
    assert "add rule inet gantry policy-3 ip daddr 10.0.0.0/8 udp dport 53 accept" in lines
    assert "add rule inet gantry policy-3 ip daddr 1.2.3.4/32 accept" in lines
    assert lines.index("add table inet gantry") == 0
    forward = [line for line in lines if " forward iifname" in line]
    assert "jump from_sandbox" in forward[0] and "reject" in forward[1]
    for private in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"):
        assert private in forward[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.1.2.3", ("10.1.2.3/32", None)),
        ("10.1.2.3:443", ("10.1.2.3/32", 443)),
        ("10.1.2.3/8", ("10.0.0.0/8", None)),
        ("10.0.0.0/8:80", ("10.0.0.0/8", 80)),
        ("localhost:5000", ("127.0.0.1/32", 5000)),
    ],
)
def test_an_allowed_destination_is_read(text: str, expected: tuple[str, int | None]) -> None:
    [found] = parse_allow(text)
    assert (str(found.network), found.port) == expected
    assert isinstance(found, Allowed)


@pytest.mark.parametrize("text", ["", "10.0.0.1:0", "10.0.0.1:x", "no such host", "1.2.3.4/99"])
def test_a_destination_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="no destination to allow"):
        parse_allow(text)


def test_name_servers_on_the_hosts_loopback_are_replaced_by_the_real_ones(tmp_path: Path) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("# systemd\nnameserver 127.0.0.53\nnameserver ::1\noptions edns0\n")
    real.write_text("nameserver 9.9.9.9\nnameserver nonsense\n")
    assert resolvers.name_servers((tmp_path / "missing", stub, real)) == ["9.9.9.9"]
    assert resolvers.name_servers((stub,)) == []
    assert resolvers.render(["9.9.9.9"]) == "nameserver 9.9.9.9\noptions timeout:3 attempts:2\n"


@pytest.fixture
def subnet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the range of egress networks."""

    def set_it(text: str) -> None:
        monkeypatch.setenv("GANTRY_EGRESS_SUBNET", text)
        subnets.egress.cache_clear()

    yield set_it
    subnets.egress.cache_clear()


@pytest.mark.parametrize("text", ["foo", "", "10.0.0.1/16", "10.0.0.0/31", "fd00::/48"])
def test_a_range_that_is_none_is_a_sentence(text: str, subnet: Callable[[str], None]) -> None:
    subnet(text)
    with pytest.raises(HostError, match=r"GANTRY_EGRESS_SUBNET is .* Write it as 10\.211\.0\.0/16"):
        egress.addresses(1)


def test_there_are_no_more_networks_than_the_range_holds(
    state: StateDirectory, subnet: Callable[[str], None]
) -> None:
    subnet("10.99.0.0/29")
    assert subnets.egress_networks(with_ipv6=False) == 2
    for number in range(2):
        assert directory.claim(state, most=2)[0] == number
    with pytest.raises(HostError, match="All 2 sandbox networks are in use"):
        directory.claim(state, most=2)
    for number in range(2):
        directory.clear(state.networks_dir / str(number))


def test_each_network_has_a_subnet_of_its_own() -> None:
    assert egress.addresses(0) == ("10.211.0.1", "10.211.0.2")
    assert egress.addresses(65) == ("10.211.1.5", "10.211.1.6")


@pytest.mark.root
@pytest.mark.parametrize("chain", ["FORWARD", "DOCKER-USER"])
def test_a_firewall_that_drops_what_it_forwards_lets_us_through(chain: str) -> None:
    """In a network namespace of the test's own."""
    program = "from runtime.network import neighbours as n; n.let_us_through(); n.let_us_through()"
    made = "" if chain == "FORWARD" else f"iptables -N {chain}; iptables -I FORWARD -j {chain};"
    rules = sh(
        f"unshare --net sh -ec 'iptables -P FORWARD DROP; {made}"
        f' {sys.executable} -c "{program}"; iptables -S\''
    ).splitlines()
    assert rules.count(f"-A {chain} -i gtw+ -j ACCEPT") == 1
    answers = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    assert rules.count(f"-A {chain} -o gtw+ {answers}") == 1


def test_a_firewall_that_accepts_is_left_alone() -> None:
    assert neighbours.commands("-P INPUT DROP\n-P FORWARD ACCEPT\n-N DOCKER-USER\n") == []


def test_two_installations_may_make_networks_at_the_same_time(tmp_path: Path) -> None:
    states = [StateDirectory(tmp_path / name) for name in ("one", "two")]

    def make_some(state: StateDirectory) -> None:
        for _ in range(8):
            with open_network(Network.EGRESS, state=state):
                pass

    together(make_some, states)


@pytest.mark.root
def test_a_reaper_leaves_a_device_alone_that_took_a_dead_ones_number(state: StateDirectory) -> None:
    """As after a reboot, when another installation was first."""
    with open_network(Network.EGRESS, state=state) as network:
        assert network is not None and network.netns is not None
        number = network.netns.parent.name
        other = StateDirectory(state.root / "other")
        dead = other.networks_dir / number
        (dead / "sysfs").mkdir(parents=True)
        (dead / "netns").touch()
        (dead / "owner").write_text("1.1.earlier-boot")
        assert reap_here(other) == [f"removed network {number}"]
        assert Path(f"/sys/class/net/gtw{number}").exists()
    later.settle()
