"""A private network that processes which know nothing but its name share (``private``).

Whoever comes first makes it and the last one takes it down. Each member's directory says whose
it is; what else later ones need is in the network's own: its name, and the names of members and
their numbers in the hosts file. Who comes, who goes and the reaper take turns.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime import owner
from runtime.errors import SpecError
from runtime.network import directory, private, subnets
from runtime.network.private import Hub
from runtime.state import StateDirectory

LOCK = "networks.lock"


@contextmanager
def turn(state: StateDirectory) -> Iterator[None]:
    """For the block nobody else of this state directory comes to such a network or leaves it."""
    with (state.root / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def joined(
    state: StateDirectory,
    network: str,
    names: Sequence[str],
    *,
    with_egress: bool,
    allow: Sequence[str] = (),
) -> Iterator[Path]:
    """The directory of a member, called ``names``, of the network called ``network``.

    What ``allow`` adds to egress, the first member says for all. Raises SpecError, HostError.
    """
    with ExitStack() as membership:
        with turn(state):
            hub = _find(state, network) or _make(state, network, with_egress, allow)
            try:
                _check_egress(hub, network, with_egress)
                place = membership.enter_context(hub.attached(names[0], names[1:]))
            finally:
                _leave(hub)
        try:
            yield place
        finally:
            with turn(state):
                membership.close()
                _leave(hub)


def is_alive(network: Path) -> bool:
    """Whether a process is in it; of one that has no name, whether that which made it lives."""
    if _has_name(network):
        return any(map(_owner_is_alive, _members(network)))
    return _owner_is_alive(network)


def dead_members(network: Path) -> list[Path]:
    """Of one that has a name: directories of members whose processes are gone."""
    if not _has_name(network):
        return []
    return [path for path in _members(network) if not _owner_is_alive(path)]


def _has_name(network: Path) -> bool:
    return (network / directory.ABOUT).exists()


def _members(network: Path) -> list[Path]:
    return list(network.glob(directory.MEMBERS))


def _owner_is_alive(path: Path) -> bool:
    try:
        return owner.is_alive((path / directory.OWNER).read_text())
    except OSError:
        return False


def _make(state: StateDirectory, network: str, with_egress: bool, allow: Sequence[str]) -> Hub:
    hub = private.make(state, with_egress=with_egress, allow=allow)
    about = {"name": network, "egress": hub.egress, "egress6": hub.egress6}
    (hub.path / directory.ABOUT).write_text(json.dumps(about))
    return hub


def _find(state: StateDirectory, network: str) -> Hub | None:
    """One with somebody in it; those that were killed are out of it then."""
    for path in state.networks_dir.iterdir():
        try:
            about = json.loads((path / directory.ABOUT).read_text())
        except (OSError, ValueError):
            continue
        if about["name"] == network and is_alive(path):
            hub = Hub(path, about["egress"], about["egress6"], _numbers(path))
            for dead in dead_members(path):
                hub.bury(int(dead.name.rpartition("-")[2]))
            here = {name for name, number in hub.numbers.items() if hub.member(number).exists()}
            hub.present |= here
            return hub
    return None


def _numbers(network: Path) -> dict[str, int]:
    """Of every name that ever was in it."""
    first = int(subnets.private().network_address) + 1
    found: dict[str, int] = {}
    for line in (network / directory.HOSTS).read_text().splitlines():
        address, *names = line.split()
        if ":" not in address and "localhost" not in names:
            found.update(dict.fromkeys(names, int(ipaddress.IPv4Address(address)) - first))
    return found


def _check_egress(hub: Hub, network: str, wanted: bool) -> None:
    if hub.egress != wanted:
        raise SpecError(
            f"The private network {network} is there with{'' if hub.egress else 'out'} egress.",
            hint="Ask for it as the others in it did, or choose another name.",
        )


def _leave(hub: Hub) -> None:
    """Take it down if nobody is in it."""
    if not is_alive(hub.path):
        private.take_down(hub)
