"""Keeps the kernel's table of sandboxes' rules as it should be, and loads it only when it is not.

A commit to nftables waits for every processor, 10 to 30 ms each. So what a network may reach
is a policy, a number that its device has as its group (ip-link(8)): devices come and go
without a commit. Whether the table is still as we left it is asked of the kernel by one
message: its generation grows with every commit, whoever made it (NFT_MSG_GETGEN).
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from ipaddress import IPv6Network
from pathlib import Path

from runtime import process
from runtime.network import firewall, neighbours
from runtime.network.firewall import Allowed
from runtime.process import Command

STATE = Path("/run/gantry-network.json")
KEPT = 32  # policies; those that living devices have are kept beyond
BOOT = Path("/proc/sys/kernel/random/boot_id")
DEVICES = Path("/sys/class/net")
SO_NETNS_COOKIE = 71  # Linux >= 5.14: a number that no other namespace of this boot ever has
NFT_MSG_GETGEN = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES
NLM_F_REQUEST = 1
UNKNOWN = 0  # the kernel's first generation is 1


@dataclass(slots=True)
class Loaded:
    """What was loaded last, and the kernel's generation right after it; UNKNOWN: do it again."""

    place: str = ""
    generation: int = UNKNOWN
    links: list[str] = field(default_factory=list)
    policies: dict[str, list[str]] = field(default_factory=dict)  # by group, the oldest first


def admit(allowed: Sequence[Allowed], links: Sequence[IPv6Network]) -> int:
    """The group for a device whose network may reach ``allowed`` and the public internet.

    The table holds it when this returns. One caller at a time on the whole machine: until the
    device has its group, another might drop the policy. Raises HostError when nft refuses.
    """
    rules = [rule for each in allowed for rule in each.rules()]
    group = firewall.group_of(rules)
    known, near, place = _read(), [str(link) for link in links], _place()
    same_place = place != "" and known.place == place
    if (
        same_place
        and UNKNOWN != known.generation == kernel_generation()
        and known.links == near
        and str(group) in known.policies
    ):
        return group
    policies = dict(known.policies) if same_place else {}
    policies.pop(str(group), None)
    policies[str(group)] = rules
    _load(Loaded(place, UNKNOWN, near, policies), links)
    return group


def _load(wanted: Loaded, links: Sequence[IPv6Network]) -> None:
    neighbours.let_us_through()
    old = _superfluous(wanted.policies)
    for name in old:
        del wanted.policies[name]
    script = firewall.script({int(g): rules for g, rules in wanted.policies.items()}, links)
    before = kernel_generation()
    process.run(Command(("nft", "-f", "-"), (script + firewall.forget(map(int, old))).encode()))
    if before != UNKNOWN and kernel_generation() == before + 1:  # ours, and nobody else's
        wanted.generation = before + 1
    STATE.write_text(json.dumps(asdict(wanted)))


def _superfluous(policies: dict[str, list[str]]) -> list[str]:
    """The oldest of too many, but not those of living devices, nor the newest."""
    used = set()
    for file in DEVICES.glob(f"{firewall.DEVICE_PREFIX}*/netdev_group"):
        with suppress(OSError):
            used.add(file.read_text().strip())
    unused = [group for group in policies if group not in used][:-1]
    return unused[: max(0, len(policies) - KEPT)]


def kernel_generation() -> int:
    """How many commits this network namespace has seen; UNKNOWN where it does not tell."""
    # linux/netlink.h: struct nlmsghdr, then nfgenmsg (family, version, resource id).
    body = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
    head = struct.pack("=IHHII", 16 + len(body), NFT_MSG_GETGEN, NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as kernel:  # NETLINK_NETFILTER
            kernel.bind((0, 0))
            kernel.send(head + body)
            answer = kernel.recv(4096)
    except OSError:
        return UNKNOWN
    length, kind = struct.unpack_from("=HH", answer, 20) if len(answer) >= 28 else (0, 0)
    if (length, kind) != (8, 1):  # NFTA_GEN_ID is the first attribute, in network byte order
        return UNKNOWN
    return int(struct.unpack_from(">I", answer, 24)[0])


def _place() -> str:
    """This boot and network namespace; empty where the kernel cannot tell namespaces apart."""
    try:
        with socket.socket() as any_socket:
            cookie = any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    except OSError:
        return ""
    return f"{BOOT.read_text().strip()} {cookie.hex()}"


def _read() -> Loaded:
    """What the file says; nothing where it is missing or was half written."""
    try:
        return Loaded(**json.loads(STATE.read_text()))
    except (OSError, ValueError, TypeError):
        return Loaded()
