"""The network of a sandbox: none, egress (outbound only) or the host's.

``open_network`` chooses and cleans up. A network is a directory of the state directory:
``netns`` (a network namespace, kept by a bind mount), ``sysfs`` (its /sys) and
``resolv.conf``; so whoever knows ``netns`` finds the rest beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.network import egress, hostnet
from runtime.spec import Network
from runtime.state import StateDirectory

__all__ = ["NetworkHandle", "handle_of", "open_network"]


@dataclass(frozen=True, slots=True)
class NetworkHandle:
    """A network that sandboxes can join. ``netns`` is None for the host's own."""

    netns: Path | None
    sysfs: Path
    resolv_conf: Path


@contextmanager
def open_network(
    kind: Network, *, state: StateDirectory, allow: Sequence[str] = ()
) -> Iterator[NetworkHandle | None]:
    """A network for the duration of the block; None for NONE, where each sandbox has its own.

    ``allow``: what EGRESS may reach besides the public internet, as ``HOST``, ``HOST:PORT``,
    ``NET/BITS`` or ``NET/BITS:PORT`` with numeric addresses. Raises SpecError for what is
    none of these, HostError when the network cannot be made.
    """
    if kind is Network.NONE:
        yield None
    elif kind is Network.EGRESS:
        with egress.opened(state, allow) as directory:
            yield handle_of(directory / egress.NETNS)
    else:
        with hostnet.opened(state) as directory:
            yield NetworkHandle(None, directory / egress.SYSFS, directory / egress.RESOLV_CONF)


def handle_of(netns: Path) -> NetworkHandle:
    """The handle of an EGRESS network that is open elsewhere."""
    return NetworkHandle(netns, netns.parent / egress.SYSFS, netns.parent / egress.RESOLV_CONF)
