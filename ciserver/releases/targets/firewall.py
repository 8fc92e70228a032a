"""What a deployed container may reach, as text for nft. Pure; nothing here runs anything.

    forward   container -> link-local, which is where clouds keep a machine's credentials: refused
              container -> another environment's container: refused
              container -> anywhere else: yes
              a user's container -> the machine itself, by any of its addresses: refused
    input     container -> the machine itself, by any of its addresses: answers only

A user's podman has its bridges in a network namespace of its own, where the machine is as far away
as the world is: a process of the user's (slirp4netns) connects from there, and none of the
machine's own rules would know it for a container.

The rules hold for the bridges in two sets, one of each engine: both may run on one machine, and
neither knows the other's networks. A load replaces the rules, adds the bridges that it knows and
takes out those that it was told are gone, all at once: who looked earlier and loads later takes
nobody's new bridge out, but for one with the name of one that is gone, for which it looks again
(see ``networks``). Each bridge has its network's name as a comment, so that one look at the
table tells whether a network is guarded.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

TABLE = "inet gantry_deployed"
ENGINES = ("podman", "docker")  # the names of the sets
LINK_LOCAL = ("169.254.0.0/16", "fe80::/10")
METADATA = "fd00:ec2::254"  # Amazon's by IPv6, which is not link-local
# Whatever comes from elsewhere is not judged here.
OTHERS = " ".join(f"iifname != @{name}" for name in ENGINES) + " accept"
REFUSE = "reject with icmpx type admin-prohibited"
# Neighbour discovery, without which a bridge carries no IPv6 at all.
NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"


def _chains(machine: Sequence[str]) -> dict[str, list[str]]:
    """The rules of each; ``machine`` is what is refused for being the machine's own."""
    own = [
        f"{word} daddr {{ {', '.join(some)} }} {REFUSE}"
        for word, version in (("ip", 4), ("ip6", 6))
        if (some := [one for one in machine if ipaddress.ip_network(one).version == version])
    ]
    return {
        "forward": [
            OTHERS,
            "ct state established,related accept",
            f"ip daddr {LINK_LOCAL[0]} {REFUSE}",
            f"ip6 daddr {{ {LINK_LOCAL[1]}, {METADATA} }} {REFUSE}",
            *own,
            *(f"oifname @{name} {REFUSE}" for name in ENGINES),
        ],
        "input": [OTHERS, "ct state established,related accept", NEIGHBOURS, REFUSE],
    }


def script(
    engine: str,
    bridges: Mapping[str, str],
    *,
    gone: Iterable[str] = (),
    machine: Sequence[str] = (),
) -> str:
    """nft commands that guard ``bridges`` (by the names of their networks) of ``engine``, beside
    all that are guarded already but for ``gone``; may be loaded any number of times. ``machine`` as
    ``networks_of`` tells it, where the bridges are not the machine's.

    The chains stand before those of the engines (priority filter), whose ``accept`` is not the
    last word then.
    """
    # Few words: each deployment to another machine sends them.
    chains = _chains(machine)
    lines = [f"table {TABLE} {{"]
    lines += [f"set {name} {{ type ifname; }}" for name in ENGINES]
    for chain in chains:
        hook = f"type filter hook {chain} priority filter - 5; policy accept;"
        lines.append(f"chain {chain} {{ {hook} }}")
    lines += ["}", f"flush table {TABLE}"]
    named = {device: name for name, device in bridges.items()}
    # To take out what is not there fails, and what is there keeps the comment that it has.
    if some := ", ".join(f'"{device}"' for device in sorted({*named, *gone})):
        lines += [f"{verb} element {TABLE} {engine} {{ {some} }}" for verb in ("add", "delete")]
    if some := ", ".join(f'"{device}" comment "{named[device]}"' for device in sorted(named)):
        lines.append(f"add element {TABLE} {engine} {{ {some} }}")
    lines.append(f"table {TABLE} {{")
    for chain, rules in chains.items():
        lines += [f"chain {chain} {{", *rules, "}"]
    return "\n".join([*lines, "}", ""])


def networks_of(addresses: str, bridges: str) -> list[str]:
    """The machine's own addresses, and what its bridges lead to, which are other containers: of
    what ``ip -o addr`` prints of all its devices and of its bridges. As few as can be."""
    found = [ipaddress.ip_network(one.ip) for one in _interfaces(addresses)]
    found += [one.network for one in _interfaces(bridges)]
    kept = [one for one in found if not one.is_loopback and not one.is_link_local]
    four = ipaddress.collapse_addresses(one for one in kept if one.version == 4)
    six = ipaddress.collapse_addresses(one for one in kept if one.version == 6)
    return [str(one) for one in (*four, *six)]


def _interfaces(said: str) -> Iterator[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    for line in said.splitlines():
        words = line.split()
        if len(words) > 3 and words[2] in {"inet", "inet6"}:
            yield ipaddress.ip_interface(words[3])


def guarded(listed: str, engine: str) -> dict[str, str]:
    """The names of the networks whose bridges of ``engine`` the table guards, as ``nft list``
    prints it, by bridge; nothing, if its rules are not all there."""
    refusals = sum(rule.endswith(REFUSE) for rules in _chains(()).values() for rule in rules)
    if listed.count("reject with icmpx") < refusals:
        return {}
    found = re.search(rf"set {engine} {{[^}}]*elements = {{([^}}]*)}}", listed)
    return dict(re.findall(r'"([^"]+)"(?: comment "([^"]*)")?', found[1])) if found else {}


def guards_others(listed: str, engine: str) -> bool:
    """Whether the table, as ``nft list`` prints it, guards bridges of another than ``engine``."""
    others = "|".join(name for name in ENGINES if name != engine)
    return re.search(rf"set ({others}) {{[^}}]*elements", listed) is not None
