"""What a deployed container may reach, as text for nft. Pure; nothing here runs anything.

    forward   container -> link-local, which is where clouds keep a machine's credentials: refused
              container -> another environment's container: refused
              container -> anywhere else: yes
    input     container -> the machine itself, by any of its addresses: answers only

The rules hold for the bridges in one set, and each load replaces the whole table at once.
"""

from __future__ import annotations

from collections.abc import Iterable

TABLE = "inet gantry_deployed"
LINK_LOCAL = ("169.254.0.0/16", "fe80::/10")
METADATA = "fd00:ec2::254"  # Amazon's by IPv6, which is not link-local
OTHERS = "iifname != @bridges accept"  # whatever comes from elsewhere is not judged here
REFUSE = "reject with icmpx type admin-prohibited"
# Neighbour discovery, without which a bridge carries no IPv6 at all.
NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"


def script(bridges: Iterable[str]) -> str:
    """nft commands that guard ``bridges`` and no other device; may be loaded any number of times.
    Without bridges they leave nothing behind.

    The chains stand before those of the engines (priority filter), whose ``accept`` is not the
    last word then.
    """
    names = ", ".join(f'"{name}"' for name in sorted(set(bridges)))
    afresh = f"add table {TABLE}\ndelete table {TABLE}\n"
    if not names:
        return afresh
    rules = {
        "forward": [
            "ct state established,related accept",
            f"ip daddr {LINK_LOCAL[0]} {REFUSE}",
            f"ip6 daddr {{ {LINK_LOCAL[1]}, {METADATA} }} {REFUSE}",
            f"oifname @bridges {REFUSE}",
        ],
        "input": ["ct state established,related accept", NEIGHBOURS, REFUSE],
    }
    # Few words: each deployment to another machine sends them.
    lines = [f"table {TABLE} {{", f"set bridges {{ type ifname; elements = {{ {names} }}; }}"]
    for chain, wanted in rules.items():
        hook = f"type filter hook {chain} priority filter - 5; policy accept;"
        lines += [f"chain {chain} {{", hook, OTHERS, *wanted, "}"]
    return afresh + "\n".join([*lines, "}"]) + "\n"
