"""What of IPv6 this machine speaks, and how sandboxes get their share of it.

A sandbox has IPv6 if the host has a way to public IPv6 addresses. Its own address is a
unique local one (RFC 4193), behind the host's by NAT66, as for IPv4. Neither end has a
link-local address, and each knows the other's hardware address for good: nothing is asked
or answered by neighbour discovery, so nothing can be forged.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.network import subnets

HOST_MAC = "02:67:74:00:00:01"  # locally administered; each cable is a wire of its own
INSIDE_MAC = "02:67:74:00:00:02"

PUBLIC = ipaddress.IPv6Network("2000::/3")
ROUTES = Path("/proc/net/ipv6_route")
SYSCTL = Path("/proc/sys/net/ipv6/conf")
# linux/ipv6_route.h and linux/route.h
RTF_GATEWAY, RTF_REJECT, RTF_ANYCAST, RTF_LOCAL = 0x2, 0x200, 0x00100000, 0x80000000
LINK_MINIMUM = 48  # a shorter "link" is a provider's way of saying default route


@dataclass(frozen=True, slots=True)
class Route:
    """One line of /proc/net/ipv6_route."""

    network: ipaddress.IPv6Network
    flags: int
    device: str

    @property
    def leads_out(self) -> bool:
        mine = self.flags & (RTF_REJECT | RTF_ANYCAST | RTF_LOCAL) or self.device == "lo"
        return not mine and (self.network.prefixlen == 0 or self.network.subnet_of(PUBLIC))


def parse_routes(text: str) -> list[Route]:
    """Routes of a /proc/net/ipv6_route; all numbers there are hexadecimal."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 10:
            address = ipaddress.IPv6Address(bytes.fromhex(fields[0]))
            network = ipaddress.IPv6Network((address, int(fields[1], 16)), strict=False)
            found.append(Route(network, int(fields[8], 16), fields[9]))
    return found


def routes(file: Path = ROUTES) -> list[Route]:
    """The ways out of this machine; none where there is no IPv6."""
    try:
        return [route for route in parse_routes(file.read_text()) if route.leads_out]
    except OSError:
        return []


def links(ways: list[Route]) -> list[ipaddress.IPv6Network]:
    """Networks of public addresses that the host is itself in.

    In IPv4 the office's own network has private addresses; in IPv6 it has public ones.
    """
    found = {
        route.network
        for route in ways
        if not route.flags & RTF_GATEWAY and LINK_MINIMUM <= route.network.prefixlen < 128
    }
    return sorted(found)


def addresses(number: int) -> tuple[str, str]:
    """(host's, sandbox's) address of the /64 with this number."""
    first = subnets.egress6().network_address + (number << 64)
    return str(first + 1), str(first + 2)


def inside_commands(number: int) -> list[str]:
    """What ip(8) does in the new namespace, after ``eth0`` is there and before it is up."""
    host_side, inside = addresses(number)
    return [
        "link set eth0 addrgenmode none",
        f"addr add {inside}/64 dev eth0 nodad",
        f"neigh add {host_side} lladdr {HOST_MAC} dev eth0 nud permanent",
    ]


def host_commands(device: str, number: int) -> list[str]:
    """And on the host's end, before it is up."""
    host_side, inside = addresses(number)
    return [
        f"addr add {host_side}/64 dev {device} nodad",
        f"neigh add {inside} lladdr {INSIDE_MAC} dev {device} nud permanent",
    ]


def set_up_device(device: str) -> None:
    """On the host: the cable speaks IPv6 whatever new devices do by default, and obeys no one."""
    for name, value in (("accept_ra", "0"), ("disable_ipv6", "0")):
        (SYSCTL / device / name).write_text(value)


def forward() -> None:
    """Let the host forward. A router ignores advertisements unless told otherwise: a host that
    got its address by one would lose it within the hour."""
    switch = SYSCTL / "all/forwarding"
    if switch.read_text().strip() == "1":
        return
    for setting in SYSCTL.glob("*/accept_ra"):
        with suppress(OSError):  # a device that went away
            if setting.read_text().strip() == "1":
                setting.write_text("2")
    switch.write_text("1")
