"""What a deployed container may reach, as text for nft. Pure; nothing here runs anything.

    forward   container -> link-local, which is where clouds keep a machine's credentials: refused
              container -> another environment's container: refused
              container -> anywhere else: yes
    input     container -> the machine itself, by any of its addresses: answers only

The rules hold for the bridges in two sets, one of each engine: both may run on one machine, and
neither knows the other's networks. A load replaces the rules and its own engine's set at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

TABLE = "inet gantry_deployed"
ENGINES = ("podman", "docker")  # the names of the sets
LINK_LOCAL = ("169.254.0.0/16", "fe80::/10")
METADATA = "fd00:ec2::254"  # Amazon's by IPv6, which is not link-local
# Whatever comes from elsewhere is not judged here.
OTHERS = " ".join(f"iifname != @{name}" for name in ENGINES) + " accept"
REFUSE = "reject with icmpx type admin-prohibited"
# Neighbour discovery, without which a bridge carries no IPv6 at all.
NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
CHAINS = {
    "forward": [
        OTHERS,
        "ct state established,related accept",
        f"ip daddr {LINK_LOCAL[0]} {REFUSE}",
        f"ip6 daddr {{ {LINK_LOCAL[1]}, {METADATA} }} {REFUSE}",
        *(f"oifname @{name} {REFUSE}" for name in ENGINES),
    ],
    "input": [OTHERS, "ct state established,related accept", NEIGHBOURS, REFUSE],
}


def script(engine: str, bridges: Iterable[str]) -> str:
    """nft commands that guard ``bridges``, all that ``engine`` has there, beside those of the other
    engine; may be loaded any number of times.

    The chains stand before those of the engines (priority filter), whose ``accept`` is not the
    last word then.
    """
    # Few words: each deployment to another machine sends them.
    lines = [f"table {TABLE} {{"]
    lines += [f"set {name} {{ type ifname; }}" for name in ENGINES]
    for chain in CHAINS:
        hook = f"type filter hook {chain} priority filter - 5; policy accept;"
        lines.append(f"chain {chain} {{ {hook} }}")
    lines += ["}", f"flush table {TABLE}", f"flush set {TABLE} {engine}"]
    if names := ", ".join(f'"{name}"' for name in sorted(set(bridges))):
        lines.append(f"add element {TABLE} {engine} {{ {names} }}")
    lines.append(f"table {TABLE} {{")
    for chain, rules in CHAINS.items():
        lines += [f"chain {chain} {{", *rules, "}"]
    return "\n".join([*lines, "}", ""])


def guards_others(listed: str, engine: str) -> bool:
    """Whether the table, as ``nft list`` prints it, guards bridges of another than ``engine``."""
    others = "|".join(name for name in ENGINES if name != engine)
    return re.search(rf"set ({others}) {{[^}}]*elements", listed) is not None
