"""The ranges that networks take their addresses from, as the administrator set them."""

from __future__ import annotations

import ipaddress
import os
from functools import lru_cache

from runtime.errors import HostError

NETWORKS = 4096  # at most, and no more than the ranges hold: two must not have the same


@lru_cache(maxsize=1)
def egress() -> ipaddress.IPv4Network:
    """A /30 of it for each. Raises HostError for a setting that is no such range."""
    return ipaddress.IPv4Network(_setting("GANTRY_EGRESS_SUBNET", "10.211.0.0/16", 4, 30))


@lru_cache(maxsize=1)
def egress6() -> ipaddress.IPv6Network:
    """A /64 of it for each."""
    return ipaddress.IPv6Network(_setting("GANTRY_EGRESS_SUBNET6", "fd3b:5a0f:91c7::/48", 6, 64))


@lru_cache(maxsize=1)
def private() -> ipaddress.IPv4Network:
    """What every private network has inside."""
    return ipaddress.IPv4Network(_setting("GANTRY_PRIVATE_SUBNET", "10.212.0.0/24", 4, 29))


def egress_networks(*, with_ipv6: bool) -> int:
    """How many there can be at once."""
    found = min(NETWORKS, egress().num_addresses // 4)
    return min(found, 1 << (64 - egress6().prefixlen)) if with_ipv6 else found


def _setting(name: str, default: str, version: int, longest: int) -> str:
    text = os.environ.get(name, default)
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        network = None
    if network is None or network.version != version or network.prefixlen > longest:
        raise HostError(
            f"{name} is {text!r}, which is no IPv{version} range of /{longest} or wider.",
            hint=f"Write it as {default}, with zeros behind the prefix.",
        )
    return text
