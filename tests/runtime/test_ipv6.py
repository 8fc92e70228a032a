"""IPv6 for egress: out to public addresses and nowhere else, where the host has IPv6."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.network import firewall, ipv6, open_network, open_private, resolvers
from runtime.network.firewall import in_nat64, parse_allow
from runtime.spec import Network
from tests.runtime.conftest import Sandboxes
from tests.runtime.test_network import NAME, TRY, internet, sh

__all__ = ["internet"]
ROOT = Path(__file__).parents[2]
PUBLIC = "2a00:45::45"
NEIGHBOUR = "2a00:46:0:1::2"  # in the host's own network, which has public addresses
OURS = "2a00:46:0:1::1"
OTHERS = ("fd00:45::45", "2002:a00:1::1", "64:ff9b::a2d:2d2d")


@pytest.fixture
def internet6(internet: None) -> Iterator[None]:
    cable = sh(f"ip -n {NAME} -o link show world").split("@if")[1].split(":")[0]
    device = next(
        line.split(":")[1].split("@")[0].strip()
        for line in sh("ip -o link").splitlines()
        if line.startswith(f"{cable}:")
    )
    sh(f"""
    echo 0 > /proc/sys/net/ipv6/conf/{device}/disable_ipv6
    ip addr add {OURS}/64 dev {device} nodad
    ip -n {NAME} addr add {NEIGHBOUR}/64 dev world nodad
    ip -n {NAME} -6 route add default via {OURS}
    for a in {PUBLIC} {" ".join(OTHERS)}
    do ip -n {NAME} addr add $a/128 dev lo; ip -6 route add $a via {NEIGHBOUR}; done
    """)
    yield  # the addresses and routes go with the cable


@pytest.mark.root
def test_egress_reaches_public_ipv6_and_nothing_private_or_ours(
    sandboxes: Sandboxes, internet6: None
) -> None:
    host = subprocess.Popen(
        ["busybox", "nc", "-ll", "-p", "8111", "-e", "echo", "hello"], stderr=subprocess.DEVNULL
    )
    link_local = "fe80::1%eth0 fe80::1"
    try:
        with open_network(Network.EGRESS, state=sandboxes.state) as network:
            assert network is not None and network.netns is not None
            number = int(network.netns.parent.name)
            gateway, _ = ipv6.addresses(number)
            ran = sandboxes.sh(
                f"{TRY} for a in {PUBLIC} {NEIGHBOUR} {' '.join(OTHERS)} ::ffff:10.45.45.45 "
                f"{link_local}; do try $a 8000; done\n"
                f"for a in {OURS} {gateway} ::1 ::ffff:127.0.0.1 ::ffff:10.211.0.1; "
                "do try $a 8111; done; ip -6 addr show eth0 | grep -c fe80",
                netns=network.netns,
                network=Network.EGRESS,
            )
    finally:
        host.kill()
        host.wait()
    assert ran.out == f"{PUBLIC} reached\n0\n"


@pytest.mark.root
def test_what_is_allowed_is_reached_over_ipv6_too(sandboxes: Sandboxes, internet6: None) -> None:
    allow = [f"[{OTHERS[0]}]:8000", NEIGHBOUR]
    with open_network(Network.EGRESS, state=sandboxes.state, allow=allow) as network:
        assert network is not None
        ran = sandboxes.sh(
            f"{TRY} again() {{ for i in 1 2 3; do try $1 8000 && return; done; }}\n"
            f"again {OTHERS[0]}; again {NEIGHBOUR}; try {OTHERS[2]} 8000; true",
            netns=network.netns,
        )
    assert ran.out == f"{OTHERS[0]} reached\n{NEIGHBOUR} reached\n"


@pytest.mark.root
def test_members_of_a_private_network_with_egress_have_ipv6(
    sandboxes: Sandboxes, internet6: None
) -> None:
    with open_private(state=sandboxes.state, with_egress=True) as network:
        with network.member("test") as test:
            ran = sandboxes.sh(f"{TRY} try {PUBLIC} 8000; try {OTHERS[0]} 8000", netns=test.netns)
    assert ran.out == f"{PUBLIC} reached\n"


@pytest.mark.root
def test_two_networks_do_not_meet_over_ipv6(sandboxes: Sandboxes, internet6: None) -> None:
    with open_network(Network.EGRESS, state=sandboxes.state) as one:
        with open_network(Network.EGRESS, state=sandboxes.state) as two:
            assert one and one.netns and two
            _, address = ipv6.addresses(int(one.netns.parent.name))
            inside = ["nsenter", f"--net={one.netns}"]
            server = subprocess.Popen(
                [*inside, "busybox", "nc", "-ll", "-p", "8000", "-e", "echo", "hello"]
            )
            try:
                ran = sandboxes.sh(f"sleep 0.2; {TRY} try {address} 8000", netns=two.netns)
                itself = sandboxes.sh(f"{TRY} try {address} 8000", netns=one.netns)
            finally:
                server.kill()
                server.wait()
    assert (ran.out, itself.out) == ("", f"{address} reached\n")


@pytest.mark.root
@pytest.mark.parametrize("off", ["1", "0"])
def test_on_a_host_without_ipv6_there_is_none_inside(off: str, area: Path) -> None:
    """The host is a network namespace: with IPv6 switched off, or on but leading nowhere."""
    done = subprocess.run(
        [
            *("unshare", "--net", "sh", "-ec"),
            f"echo {off} > /proc/sys/net/ipv6/conf/all/disable_ipv6; ip link set lo up; "
            f"exec {sys.executable} -m runtime run --state {area}/state --network egress -- "
            "sh -c 'cat /proc/net/if_inet6; echo; ls /sys/class/net'",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "eth0" not in done.stdout.split("\n\n")[0]
    assert done.stdout.split("\n\n")[1].split() == ["eth0", "lo"]


def test_only_a_way_to_public_addresses_counts_as_ipv6() -> None:
    zero = "0" * 32
    line = "{dest} {bits} {zero} 00 {zero} 00000400 00000001 00000000 {flags} {device}"
    table = "\n".join(
        line.format(dest=dest, bits=bits, zero=zero, flags=flags, device=device)
        for dest, bits, flags, device in (
            (zero, "00", "00200200", "lo"),
            ("fe80" + zero[4:], "40", "00000001", "eth0"),
            ("fd00" + zero[4:], "40", "00000001", "eth0"),
            ("2a00004600000001" + zero[16:], "40", "00000001", "eth0"),
            ("2a00004600000001" + zero[16:-1] + "1", "80", "80200001", "eth0"),
            (zero, "00", "00000003", "eth0"),
        )
    )
    ways = [route for route in ipv6.parse_routes(table) if route.leads_out]
    assert [str(route.network) for route in ways] == ["2a00:46:0:1::/64", "::/0"]
    assert ipv6.links(ways) == [ipaddress.IPv6Network("2a00:46:0:1::/64")]
    assert ipv6.routes(Path("/nowhere")) == []


def test_private_ipv4_behind_nat64_is_private() -> None:
    assert in_nat64("10.0.0.0/8") == "64:ff9b::a00:0/104"
    script = firewall.script({}, [ipaddress.IPv6Network("2a00:46::/64")])
    assert "64:ff9b::a00:0/104" in script and "ip6 daddr 2a00:46::/64 reject" in script


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fd00::1", ("fd00::1/128", None)),
        ("[fd00::1]:443", ("fd00::1/128", 443)),
        ("[fd00::]", ("fd00::/128", None)),
        ("fd00::/8", ("fd00::/8", None)),
        ("[fd00::/8]:80", ("fd00::/8", 80)),
    ],
)
def test_an_allowed_ipv6_destination_is_read(text: str, expected: tuple[str, int | None]) -> None:
    [found] = parse_allow(text)
    assert (str(found.network), found.port) == expected
    assert found.rules()[0].startswith("ip6 daddr fd00::")


def test_ipv6_name_servers_are_used_where_there_is_ipv6() -> None:
    text = "nameserver fd00::53\nnameserver fe80::1%eth0\nnameserver ::1\nnameserver 9.9.9.9\n"
    assert resolvers.parse(text, with_ipv6=True) == ["fd00::53", "9.9.9.9"]
    assert resolvers.parse(text) == ["9.9.9.9"]
