"""Which addresses ADD may connect to: those that a build step's own network lets through.

The worker is root in the host's network, so a name is resolved here, judged, and then connected
to by number: a name that later means something else leads nowhere.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from runtime.network import firewall, ipv6
from runtime.network.own import is_own

_PUBLIC6 = [ipaddress.IPv6Network(text) for text in firewall.PUBLIC6]
_PRIVATE6 = [
    ipaddress.IPv6Network(text)
    for text in (*firewall.PRIVATE6, *map(firewall.in_nat64, firewall.PRIVATE))
]


class Unreachable(Exception):
    """Why a host cannot or must not be connected to, as the end of a sentence."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.hint = hint


def parse_allowed(texts: Sequence[str]) -> list[firewall.Allowed]:
    """What may be reached besides the public internet."""
    return [rule for text in texts for rule in firewall.parse_allow(text)]


def reachable(host: str, port: int, allowed: Sequence[firewall.Allowed]) -> list[str]:
    """The addresses of ``host``, the likeliest first, IPv4 and IPv6.

    Raises Unreachable for an unknown name, and when one of its addresses is closed to builds.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{host} cannot be looked up ({error})") from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        opened = any(address in rule.network and rule.port in (None, port) for rule in allowed)
        if not opened and (not is_public(address) or is_own(address)):
            raise Unreachable(
                f"{host} is {address}, "
                "and a build may not reach private addresses, nor this machine",
                "Whoever runs Gantry can open it with GANTRY_EGRESS_ALLOW.",
            )
    return [str(address) for address in dict.fromkeys(addresses)]


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the rules of ``runtime.network.firewall`` let a sandbox reach it."""
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    if not any(address in network for network in _PUBLIC6):
        return False
    return not any(address in network for network in (*_PRIVATE6, *ipv6.links(ipv6.routes())))


def bracketed(address: str) -> str:
    """An address as URLs hold it."""
    return f"[{address}]" if ":" in address else address
