"""EGRESS: a network namespace that can speak to the public internet, and to nothing else.

One veth pair and a /30 per network, masqueraded by the host; no bridge, so two networks
have no common wire. IPv6 as well where the host has it (``ipv6``). Unlike netavark this closes
the host's own services.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime import process
from runtime.errors import HostError
from runtime.network import directory, firewall, ipv6, later, resolvers, rules, subnets
from runtime.network.directory import NETNS, RESOLV_CONF, SYSFS
from runtime.network.firewall import Allowed
from runtime.process import Command
from runtime.state import StateDirectory

__all__ = ["NETNS", "RESOLV_CONF", "SYSFS", "make", "opened", "take_down"]

LOCK = Path("/run/gantry-network.lock")
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


@contextmanager
def opened(state: StateDirectory, allow: Sequence[str]) -> Iterator[Path]:
    """The directory of a network that is up. Raises SpecError, HostError.

    Its cable to the host is cut in the background after the block.
    """
    path = make(state, allow)
    try:
        yield path
    finally:
        later.do(lambda: take_down(path))


def make(state: StateDirectory, allow: Sequence[str]) -> Path:
    """As ``opened``, until it is taken down."""
    ways = ipv6.routes()
    servers = resolvers.name_servers(with_ipv6=bool(ways))
    allowed = [Allowed(ipaddress.ip_network(server), 53) for server in servers]
    for text in allow:
        allowed += firewall.parse_allow(text)
    if IP_FORWARD.read_text().strip() != "1":
        IP_FORWARD.write_text("1")
    if ways:
        ipv6.forward()
    path = _make_device(state, allowed, ways)
    try:
        resolv_conf = path / RESOLV_CONF
        resolv_conf.write_text(resolvers.render(servers))
        resolv_conf.chmod(0o644)
    except BaseException:
        take_down(path)
        raise
    return path


def _make_device(state: StateDirectory, allowed: Sequence[Allowed], ways: list[ipv6.Route]) -> Path:
    """The directory of a namespace with a cable to the host."""
    with _one_at_a_time():
        number, path = directory.claim(
            state, taken=_numbers_in_use(), most=subnets.egress_networks(with_ipv6=bool(ways))
        )
        try:
            group = rules.admit(allowed, ipv6.links(ways))
            _connect(_device_of(path), number, path, bool(ways), group)
        except BaseException:
            take_down(path)
            raise
    return path


def _device_of(path: Path) -> str:
    return f"{firewall.DEVICE_PREFIX}{path.name}"


def take_down(path: Path) -> None:
    """Of any network: cut its cable, if it has one, and remove its directory. May be repeated.

    The directory last: until then it says whose the device is.
    """
    if path.name.isdecimal() and directory.has_cable(path):
        remove(_device_of(path))
    directory.clear(path)


def _numbers_in_use() -> set[str]:
    """Of devices that there are: another state directory may own them."""
    names = (name for _, name in socket.if_nameindex())
    return {name.removeprefix(firewall.DEVICE_PREFIX) for name in names}


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Devices belong to the machine: another installation may be about to make the same one."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _connect(device: str, number: int, path: Path, with_ipv6: bool, group: int) -> None:
    host_side, inside = addresses(number)
    mtu = _mtu()

    def configure() -> None:
        for name, value in (
            ("ipv6/conf/default/disable_ipv6", "0" if with_ipv6 else "1"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv4/ip_unprivileged_port_start", "0"),
        ):
            with suppress(FileNotFoundError):  # a kernel without IPv6
                Path(f"/proc/sys/net/{name}").write_text(value)
        process.run(ip_batch(inside_commands(device, host_side, inside, mtu, number, with_ipv6)))

    directory.populate(path, fresh=True, inside=configure)
    if with_ipv6:
        ipv6.set_up_device(device)
    process.run(ip_batch(host_commands(device, host_side, number, with_ipv6, group)))


def addresses(number: int) -> tuple[str, str]:
    """(host's, sandbox's) address of the /30 with this number."""
    first = subnets.egress().network_address + 4 * number
    return str(first + 1), str(first + 2)


def inside_commands(
    device: str, host_side: str, inside: str, mtu: int, number: int, with_ipv6: bool
) -> list[str]:
    """What ip(8) does in the new namespace: the cable's other end is put into the host's."""
    host_netns = f"/proc/{os.getpid()}/ns/net"
    ends = (
        f"eth0 address {ipv6.INSIDE_MAC} mtu {mtu}",
        f"{device} address {ipv6.HOST_MAC} mtu {mtu}",
    )
    commands = [
        "link set lo up",
        f"link add {ends[0]} type veth peer name {ends[1]} netns {host_netns}",
        f"addr add {inside}/30 dev eth0",
        *(ipv6.inside_commands(number) if with_ipv6 else ()),
        "link set eth0 up",
        f"route add default via {host_side} dev eth0",
    ]
    if with_ipv6:
        commands.append(f"route add ::/0 via {ipv6.addresses(number)[0]} dev eth0")
    return commands


def host_commands(
    device: str, host_side: str, number: int, with_ipv6: bool, group: int
) -> list[str]:
    """On the host's end. The group, which decides what is reached, before it is up."""
    return [
        f"link set {device} group {group} addrgenmode none",
        f"addr add {host_side}/30 dev {device}",
        *(ipv6.host_commands(device, number) if with_ipv6 else ()),
        f"link set {device} up",
    ]


def ip_batch(commands: Sequence[str]) -> Command:
    return Command(("ip", "-batch", "-"), "".join(f"{c}\n" for c in commands).encode())


def remove(device: str) -> None:
    """Cable first: deleting the namespace alone would leave it for a while. May be repeated."""
    with suppress(HostError):
        process.run(Command(("ip", "link", "delete", device)))


def _mtu(routes: Path = Path("/proc/net/route"), devices: Path = Path("/sys/class/net")) -> int:
    """The MTU towards the internet: a smaller one out there would break big packets."""
    with suppress(OSError, ValueError, IndexError):
        for line in routes.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1] == "00000000":
                return int((devices / fields[0] / "mtu").read_text())
    return 1500
