"""PRIVATE: the containers of one pipeline see one another by name, and nobody else sees them.

A hub, which is a network namespace that holds nothing but a bridge, and one namespace per
member with a cable to it. The bridge is not on the host: no address of the host is on this
wire, no firewall of the host sees what passes, and when the hub's namespace goes, every
cable goes with it. All hubs use the same addresses, since no two can meet.

With egress the hub is itself an EGRESS network, and hides its members behind its address:
what they may reach outside is what the host's rules say of that one.

Names are lines of one hosts file that every member has at /etc/hosts: no process that could
die, no port 53, and it works in images without a resolver (but glibc without an
/etc/nsswitch.conf, as in ``busybox:glibc``, asks name servers first). Lines are only ever
added, each by one write, so that members that run already see who comes later. A name means
the IPv4 address; ``ip6-NAME`` (as Debian's ``ip6-localhost``) the IPv6 one, because many
services listen on 0.0.0.0 only and many programs try one address only.
"""

from __future__ import annotations

import ipaddress
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from runtime import owner, process, syscalls
from runtime.errors import HostError, SpecError
from runtime.network import directory, egress, ipv6, later, subnets
from runtime.network.directory import HOSTS, NETNS, RESOLV_CONF
from runtime.network.egress import ip_batch
from runtime.process import Command
from runtime.state import StateDirectory

SUBNET6 = ipaddress.IPv6Network("fd3b:5a0f:91c7:ffff::/64")
BRIDGE = "br0"
# A label of RFC 1123, section 2.1; dots are allowed in aliases, underscores for Compose's names.
NAME = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?")
RESERVED = ("localhost", "ip6-localhost", "ip6-loopback")
LOCALHOST = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
# From bridge to bridge: where br_netfilter is loaded, frames between members pass here too.
MASQUERADE = f"""add table inet hub
add chain inet hub forward {{ type filter hook forward priority filter; policy drop; }}
add rule inet hub forward iifname "{BRIDGE}" oifname {{ "eth0", "{BRIDGE}" }} accept
add rule inet hub forward iifname "eth0" ct state established,related accept
add chain inet hub nat {{ type nat hook postrouting priority srcnat; policy accept; }}
add rule inet hub nat oifname "eth0" masquerade
"""


@dataclass(slots=True)
class Hub:
    """A private network that is open; ``attached`` may be called from several threads."""

    path: Path
    egress: bool
    egress6: bool
    numbers: dict[str, int] = field(default_factory=dict)  # of every name that ever was here
    present: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def attached(self, name: str, aliases: Sequence[str] = ()) -> Iterator[Path]:
        """The directory of a member for the block. A name that comes again keeps its address.

        Raises SpecError for a name that cannot be or is taken, HostError.
        """
        names = [check_name(each) for each in dict.fromkeys((name, *aliases))]
        number, new = self._claim(names)
        path = self.member(number)
        try:
            if not new:
                self._remove_port(number)
            self._connect(path, number)
            if new:
                self._tell(number, new)
            yield path
        finally:
            directory.clear(path)  # the cable goes with its namespace, when the kernel has time
            with self._lock:
                self.present -= set(names)

    def member(self, number: int) -> Path:
        return self.path / f"member-{number}"

    def bury(self, number: int) -> None:
        """Remove what is left of a member whose process was killed."""
        directory.clear(self.member(number))
        self._remove_port(number)

    def _claim(self, names: Sequence[str]) -> tuple[int, list[str]]:
        """(number of the member, those of its names that nobody has heard of yet)."""
        with self._lock:
            if taken := sorted(self.present & set(names)):
                raise SpecError(
                    f"The name {taken[0]} is taken in this private network.", hint="Choose another."
                )
            number = self.numbers.get(names[0], 0) or max(self.numbers.values(), default=0) + 1
            # Less the network's own, the hub's and the broadcast address.
            most = subnets.private().num_addresses - 3
            if number > most:
                raise SpecError(
                    f"A private network has at most {most} members.",
                    hint="Use another network, or a wider GANTRY_PRIVATE_SUBNET.",
                )
            moved = [name for name in names if self.numbers.get(name, number) != number]
            if moved:
                raise SpecError(
                    f"The name {moved[0]} belongs to another member of this network.",
                    hint="Choose another, or the same first name as then.",
                )
            new = [name for name in names if name not in self.numbers]
            self.numbers.update(dict.fromkeys(names, number))
            self.present |= set(names)
            return number, new

    def _connect(self, path: Path, number: int) -> None:
        path.mkdir(mode=0o711)
        path.chmod(0o711)
        (path / directory.OWNER).write_text(owner.token())
        for name in (HOSTS, RESOLV_CONF):  # the same files, so that later lines are seen
            os.link(self.path / name, path / name)
        hub = os.open(self.path / NETNS, os.O_RDONLY | os.O_CLOEXEC)
        try:
            commands = member_commands(
                number, f"/proc/{os.getpid()}/fd/{hub}", self.egress, self.egress6
            )
            directory.populate(path, fresh=True, inside=lambda: _run_inside(commands))
            _inside(self.path / NETNS, lambda: _run(port_commands(number)))
        finally:
            os.close(hub)

    def _remove_port(self, number: int) -> None:
        """Of a member that was here before: what the kernel has not removed yet."""
        with suppress(HostError):
            _inside(self.path / NETNS, lambda: _run([f"link delete m{number}"]))

    def _tell(self, number: int, names: Sequence[str]) -> None:
        four, six = addresses(number)
        lines = f"{four}\t{' '.join(names)}\n"
        if _has_ipv6():
            lines += f"{six}\t{' '.join(f'ip6-{name}' for name in names)}\n"
        with self._lock:
            fd = os.open(self.path / HOSTS, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.write(fd, lines.encode())
            finally:
                os.close(fd)


def check_name(name: str) -> str:
    """Raises SpecError for what is no host name, or one that means something else."""
    if not NAME.fullmatch(name) or name in RESERVED or name.startswith("ip6-"):
        raise SpecError(
            f"{name!r} is no name for a member of a private network.",
            hint="Use lower-case letters, digits, '-', '_' and '.', at most 63 of them.",
        )
    return name


@contextmanager
def opened(state: StateDirectory, *, with_egress: bool, allow: Sequence[str] = ()) -> Iterator[Hub]:
    """A hub for the block; members must have left before its end. Raises SpecError, HostError."""
    hub = make(state, with_egress=with_egress, allow=allow)
    try:
        yield hub
    finally:
        take_down(hub)


def make(state: StateDirectory, *, with_egress: bool, allow: Sequence[str] = ()) -> Hub:
    """As ``opened``, until it is taken down."""
    if with_egress:
        path = egress.make(state, allow)
    else:
        _, path = directory.claim(state)
    hub = Hub(path, with_egress, with_egress and bool(ipv6.routes()))
    try:
        if with_egress:
            _inside(path / NETNS, lambda: _open_hub(True))
        else:
            directory.populate(path, fresh=True, inside=lambda: _open_hub(False))
            _write(path / RESOLV_CONF, "")
        _write(path / HOSTS, LOCALHOST)
    except BaseException:
        take_down(hub)
        raise
    return hub


def take_down(hub: Hub) -> None:
    """A cable to the host is cut in the background."""
    if hub.egress:
        later.do(lambda: egress.take_down(hub.path))
    else:
        directory.clear(hub.path)


def addresses(number: int) -> tuple[str, str]:
    """(IPv4, IPv6) address of member ``number``; 0 is the hub's own."""
    four, six = subnets.private().network_address, SUBNET6.network_address
    return str(four + 1 + number), str(six + 1 + number)


def mac(number: int) -> str:
    """Ethernet address of member ``number``: who comes again has the one that its neighbours know.
    With another they would look for it in vain for up to half a minute (arp(7)); and 0, the hub's
    bridge, would else have that of its lowest port, whoever that is."""
    return f"02:67:74:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def hub_commands(with_egress: bool, with_ipv6: bool) -> list[str]:
    four, six = addresses(0)
    commands = [
        "link set lo up",
        f"link add {BRIDGE} address {mac(0)} type bridge stp_state 0 mcast_snooping 0",
        f"link set {BRIDGE} addrgenmode none",
    ]
    if with_egress:  # without it nothing is listening to what leaves the members
        commands.append(f"addr add {four}/{subnets.private().prefixlen} dev {BRIDGE}")
        if with_ipv6:
            commands.append(f"addr add {six}/64 dev {BRIDGE} nodad")
    return [*commands, f"link set {BRIDGE} up"]


def member_commands(number: int, hub: str, with_egress: bool, with_ipv6_egress: bool) -> list[str]:
    """What ip(8) does in a member's new namespace; the cable's other end is put into ``hub``."""
    four, six = addresses(number)
    commands = [
        "link set lo up",
        f"link add eth0 address {mac(number)} type veth peer name m{number} netns {hub}",
        "link set eth0 addrgenmode none",
        f"addr add {four}/{subnets.private().prefixlen} dev eth0",
    ]
    if _has_ipv6():
        commands.append(f"addr add {six}/64 dev eth0 nodad")
    commands.append("link set eth0 up")
    if with_egress:
        gateway4, gateway6 = addresses(0)
        commands.append(f"route add default via {gateway4} dev eth0")
        if with_ipv6_egress:
            commands.append(f"route add ::/0 via {gateway6} dev eth0")
    return commands


def port_commands(number: int) -> list[str]:
    return [
        f"link set m{number} addrgenmode none",
        f"link set m{number} master {BRIDGE} up",
    ]


def _open_hub(with_egress: bool) -> None:
    """In the hub's namespace."""
    _sysctl("ipv6/conf/default/accept_ra", "0")
    _sysctl("ipv6/conf/default/disable_ipv6", "0")
    _run(hub_commands(with_egress, _has_ipv6()))
    if with_egress:
        _sysctl("ipv4/ip_forward", "1")
        _sysctl("ipv6/conf/all/forwarding", "1")
        process.run(Command(("nft", "-f", "-"), MASQUERADE.encode()))


def _run_inside(commands: Sequence[str]) -> None:
    for name, value in (
        ("ipv4/ip_unprivileged_port_start", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
    ):
        _sysctl(name, value)
    _run(commands)


def _sysctl(name: str, value: str) -> None:
    with suppress(FileNotFoundError):  # a kernel without IPv6
        Path(f"/proc/sys/net/{name}").write_text(value)


def _has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6").exists()


def _run(commands: Sequence[str]) -> None:
    process.run(ip_batch(commands))


def _inside(netns: Path, work: Callable[[], None]) -> None:
    """Do ``work`` in a namespace, by a thread of its own that ends there."""

    def enter() -> None:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
        finally:
            os.close(fd)
        work()

    directory.in_thread(enter)


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)
