"""The one nftables table of sandboxes' networks, as text; pure but for name look-ups in `allow`.

    forward   sandbox -> anywhere: what its policy allows, then no private address, then yes
              anywhere -> sandbox: answers only
    input     sandbox -> the host itself: what its policy allows, else refused
    nat       sandbox -> anywhere: masquerade

A policy is a chain, chosen by the group of the sandbox's device (see rules.py). Every text
can be loaded any number of times, in one transaction, and leaves other policies as they are.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runtime.errors import SpecError

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
TABLE = "inet gantry"
DEVICE_PREFIX = "gtw"

# IANA's special-purpose registry (RFC 6890 and its successors), multicast and reserved space;
# without the documentation networks: no route leads there unless someone means it.
PRIVATE = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
)

# IPv6: only this can be reached at all: global unicast, and IPv4's public addresses as NAT64
# shows them (RFC 6052). Not: ::1, mapped addresses, fc00::/7, fe80::/10, ff00::/8.
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
PUBLIC6 = ("2000::/3", str(NAT64))
# And of it not: IETF's protocols with Teredo, documentation, 6to4 (each holds IPv4 addresses).
PRIVATE6 = ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")


def in_nat64(network: str) -> str:
    """An IPv4 network as it looks behind NAT64."""
    four = ipaddress.IPv4Network(network)
    address = NAT64.network_address + int(four.network_address)
    return f"{address}/{NAT64.prefixlen + four.prefixlen}"


@dataclass(frozen=True, slots=True)
class Allowed:
    """A destination outside the rules: a network and a port (None: any)."""

    network: IPNetwork
    port: int | None = None

    def rules(self) -> list[str]:
        family = "ip" if self.network.version == 4 else "ip6"
        address = f"{family} daddr {self.network}"
        if self.port is None:
            return [f"{address} accept"]
        return [f"{address} {proto} dport {self.port} accept" for proto in ("tcp", "udp")]


def parse_allow(text: str) -> list[Allowed]:
    """``HOST``, ``HOST:PORT``, ``NET/BITS`` or ``NET/BITS:PORT``; a name is looked up now.

    IPv6 with a port is in brackets: ``[fd00::1]:443``. Raises SpecError when it cannot be read
    or the name is unknown.
    """
    place, port_text = _split_port(text.strip())
    if port_text and not (port_text.isdecimal() and 0 < int(port_text) < 65536):
        raise SpecError(
            f"{text!r} is no destination to allow: {port_text!r} is no port.",
            hint="Write it as HOST, HOST:PORT, NET/BITS or NET/BITS:PORT.",
        )
    port = int(port_text) if port_text else None
    try:
        return [Allowed(ipaddress.ip_network(place, strict=False), port)]
    except ValueError:
        return [Allowed(network, port) for network in _look_up(text, place)]


def _split_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        place, _, rest = text[1:].partition("]")
        return place, rest.removeprefix(":")
    if text.count(":") > 1:  # an IPv6 address without a port
        return text, ""
    place, _, port = text.partition(":")
    return place, port


def _look_up(text: str, name: str) -> list[IPNetwork]:
    try:
        if not name:
            raise OSError("no name")
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SpecError(
            f"{text!r} is no destination to allow: {name!r} cannot be looked up.",
            hint="Write it as HOST, HOST:PORT, NET/BITS or NET/BITS:PORT.",
        ) from error
    places = sorted({str(entry[4][0]).partition("%")[0] for entry in found} - {"::1"})
    return [ipaddress.ip_network(address) for address in places]


def group_of(rules: Sequence[str]) -> int:
    """The number of a policy. Pure, so that two processes give the same one the same number."""
    digest = hashlib.sha256("\n".join(rules).encode()).digest()
    return 1 << 30 | int.from_bytes(digest[:4], "big") >> 2  # far from those that people use


def script(
    policies: Mapping[int, Sequence[str]], links: Sequence[ipaddress.IPv6Network] = ()
) -> str:
    """nft commands for the whole table: devices of each group may reach what its rules say.

    ``links``: networks of public addresses that are the host's own neighbourhood.
    """
    lines = [
        f"add table {TABLE}",
        f"add map {TABLE} policies {{ type devgroup : verdict; }}",
        *_chain("from_sandbox"),
        *_chain("forward", "type filter hook forward priority filter - 5; policy accept;"),
        *_chain("input", "type filter hook input priority filter - 5; policy accept;"),
        *_chain("nat", "type nat hook postrouting priority srcnat; policy accept;"),
        f"add rule {TABLE} from_sandbox ct state established,related accept",
        f"add rule {TABLE} from_sandbox iifgroup vmap @policies",
        f'add rule {TABLE} forward iifname "{DEVICE_PREFIX}*" jump from_sandbox',
        *(
            f'add rule {TABLE} forward iifname "{DEVICE_PREFIX}*" {rule} {REFUSE}'
            for rule in _not_private(links)
        ),
        f'add rule {TABLE} forward oifname "{DEVICE_PREFIX}*" ct state established,related accept',
        f'add rule {TABLE} forward oifname "{DEVICE_PREFIX}*" drop',
        f'add rule {TABLE} input iifname "{DEVICE_PREFIX}*" jump from_sandbox',
        f'add rule {TABLE} input iifname "{DEVICE_PREFIX}*" {REFUSE}',
        f'add rule {TABLE} nat iifname "{DEVICE_PREFIX}*" oifname != "{DEVICE_PREFIX}*" masquerade',
    ]
    for group, rules in policies.items():
        lines += _chain(f"policy-{group}")
        lines += [f"add rule {TABLE} policy-{group} {rule}" for rule in rules]
        lines.append(_element("add", group))
    return "\n".join(lines) + "\n"


def forget(groups: Iterable[int]) -> str:
    """nft commands to drop policies, whether they are there or not."""
    lines = []
    for group in groups:
        lines += [*_chain(f"policy-{group}"), _element("add", group), _element("delete", group)]
        lines.append(f"delete chain {TABLE} policy-{group}")
    return "".join(f"{line}\n" for line in lines)


def _element(verb: str, group: int) -> str:
    return f"{verb} element {TABLE} policies {{ {group} : jump policy-{group} }}"


# An answer, not silence: a forbidden connection fails at once instead of timing out.
REFUSE = "reject with icmpx type admin-prohibited"


def _not_private(links: Sequence[ipaddress.IPv6Network]) -> list[str]:
    closed = [*PRIVATE6, *map(in_nat64, PRIVATE)]
    return [
        f"ip daddr {{ {', '.join(PRIVATE)} }}",
        f"ip6 daddr != {{ {', '.join(PUBLIC6)} }}",
        f"ip6 daddr {{ {', '.join(closed)} }}",
        *(f"ip6 daddr {network}" for network in links),
    ]


def _chain(name: str, hook: str = "") -> list[str]:
    body = f" {{ {hook} }}" if hook else ""
    return [f"add chain {TABLE} {name}{body}", f"flush chain {TABLE} {name}"]
