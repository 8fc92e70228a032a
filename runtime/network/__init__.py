"""The network of a sandbox: none, egress (outbound only), private (by name) or the host's.

``open_network`` chooses and cleans up. A private network has several members::

    with open_private(state=state) as network, network.member("db", aliases=["postgres"]) as db:
        run(SandboxSpec(..., network=Network.PRIVATE, netns=db.netns, hostname="db"), state=state)

Processes that know only a private network's name meet in it by ``join_private``. Each member is a
NetworkHandle; ``builders.containers.open_container(network=handle)`` takes it.

A network is a directory of the state directory: ``netns`` (a network namespace, kept by a bind
mount), ``sysfs`` (its /sys), ``resolv.conf`` and, of a private one, ``hosts``; so whoever knows
``netns`` finds the rest beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.errors import SpecError
from runtime.network import directory, egress, hostnet, named, private
from runtime.spec import Network
from runtime.state import StateDirectory

__all__ = [
    "NetworkHandle",
    "PrivateNetwork",
    "Traffic",
    "handle_of",
    "join_private",
    "open_network",
    "open_private",
]


@dataclass(frozen=True, slots=True)
class NetworkHandle:
    """A network that sandboxes can join. ``netns`` is None for the host's own."""

    netns: Path | None
    sysfs: Path
    resolv_conf: Path
    hosts: Path | None = None  # None: only the sandbox's own name
    address: str | None = None  # IPv4, of a member of a private network

    def traffic(self) -> Traffic:
        """What has passed its network card so far; nothing to tell of the host's network.

        Sandboxes that share a network share the figures: take the difference of before and after.
        """
        if self.netns is None:
            return Traffic()
        counters = self.sysfs / "class/net/eth0/statistics"
        try:
            return Traffic(*(int((counters / f"{d}_bytes").read_text()) for d in ("rx", "tx")))
        except (OSError, ValueError):
            return Traffic()


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of Ethernet frames, in and out."""

    received: int = 0
    sent: int = 0

    def since(self, before: Traffic) -> Traffic:
        return Traffic(self.received - before.received, self.sent - before.sent)


@dataclass(frozen=True, slots=True)
class PrivateNetwork:
    """A private network that is open; its verb may be called from several threads."""

    hub: private.Hub

    @contextmanager
    def member(self, name: str, *, aliases: Sequence[str] = ()) -> Iterator[NetworkHandle]:
        """A place in it for the block, that the other members find by ``name`` and ``aliases``.

        Names are seen at once by members that run already. Raises SpecError for a name that
        cannot be or is taken, HostError when the kernel refuses.
        """
        with self.hub.attached(name, aliases) as place:
            yield _handle_of_member(place)


def _handle_of_member(place: Path) -> NetworkHandle:
    address = private.addresses(int(place.name.rpartition("-")[2]))[0]
    return replace(handle_of(place / egress.NETNS), address=address)


@contextmanager
def open_private(
    *, state: StateDirectory, with_egress: bool = False, allow: Sequence[str] = ()
) -> Iterator[PrivateNetwork]:
    """A private network for the block. With egress its members reach what EGRESS does too."""
    with private.opened(state, with_egress=with_egress, allow=allow) as hub:
        yield PrivateNetwork(hub)


@contextmanager
def join_private(
    network: str,
    name: str,
    *,
    state: StateDirectory,
    aliases: Sequence[str] = (),
    with_egress: bool = False,
    allow: Sequence[str] = (),
) -> Iterator[NetworkHandle]:
    """A place, as ``PrivateNetwork.member``, in a private network that processes share by its name
    ``network``: made for the first, gone with the last. All say the same of ``with_egress``;
    ``allow`` is the first one's.
    """
    names = (name, *aliases)
    with named.joined(state, network, names, with_egress=with_egress, allow=allow) as place:
        yield _handle_of_member(place)


@contextmanager
def open_network(
    kind: Network, *, state: StateDirectory, allow: Sequence[str] = ()
) -> Iterator[NetworkHandle | None]:
    """A network for the duration of the block; None for NONE, where each sandbox has its own.

    ``allow``: what EGRESS may reach besides the public internet, as ``HOST``, ``HOST:PORT``,
    ``NET/BITS`` or ``NET/BITS:PORT`` with numeric addresses. Raises SpecError for what is
    none of these, HostError when the network cannot be made.
    """
    if kind is Network.PRIVATE:
        raise SpecError(
            "A private network has members.", hint="Open it by runtime.network.open_private."
        )
    if kind is Network.NONE:
        yield None
    elif kind is Network.EGRESS:
        with egress.opened(state, allow) as place:
            yield handle_of(place / egress.NETNS)
    else:
        with hostnet.opened(state) as place:
            yield NetworkHandle(None, place / egress.SYSFS, place / egress.RESOLV_CONF)


def handle_of(netns: Path) -> NetworkHandle:
    """The handle of an EGRESS network, or of a member of a private one, that is open elsewhere."""
    at = netns.parent
    hosts = at / directory.HOSTS
    return NetworkHandle(
        netns, at / egress.SYSFS, at / egress.RESOLV_CONF, hosts if hosts.exists() else None
    )
