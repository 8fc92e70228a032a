"""A network of its own for each environment, and the firewall before all of them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ciserver.releases.targets import engine, firewall
from ciserver.releases.targets.commands import QUICK
from ciserver.releases.targets.engine import Engine
from ciserver.releases.targets.errors import TargetError, understood
from ciserver.releases.targets.machine import Machine


def ensure(machine: Machine, engine_there: Engine, name: str) -> None:
    """Have the network ``name``, guarded. May be called again, and after the rules were lost
    (a reboot, a restart of nftables). Raises TargetError: then no container may start there.
    """
    with _alone(machine):
        listed = _table(machine, engine_there)
        there = _networks(machine, engine_there)
        if name not in there:
            if name in firewall.guarded(listed, engine_there.program).values():
                # Its network went and its bridge did not, as when a worker is killed between. The
                # new one has another bridge, for which ``is_guarded`` must not take that.
                _guard(machine, engine_there, listed, there)
            machine.run(engine_there.create_network(name), timeout=QUICK)
            there = _networks(machine, engine_there)
        _guard(machine, engine_there, listed, there)


def is_guarded(machine: Machine, engine_there: Engine, name: str) -> bool:
    """Whether the rules hold for the bridge of ``name``, as one look tells. The network itself may
    have been removed since."""
    listed = _table(machine, engine_there)
    return name in firewall.guarded(listed, engine_there.program).values()


def guard_again(machine: Machine, engine_there: Engine, name: str) -> None:
    """Once a container runs in ``name``: a user's podman gives up its network namespace, and the
    rules in it, when no container is left there; since version 5 also when what had loaded them
    ends before the first container is there."""
    if _is_users(machine, engine_there) and not is_guarded(machine, engine_there, name):
        ensure(machine, engine_there, name)


def guard(machine: Machine, engine_there: Engine) -> None:
    """Put the rules back, should somebody have flushed them."""
    with _alone(machine):
        listed = _table(machine, engine_there)
        _guard(machine, engine_there, listed, _networks(machine, engine_there))


def remove_unused(machine: Machine, engine_there: Engine, name: str) -> None:
    """Away with the network ``name``, unless a container is in it."""
    with _alone(machine):
        if machine.attempt(engine_there.remove_network(name), timeout=QUICK).code == 0:
            listed = _table(machine, engine_there)
            _guard(machine, engine_there, listed, _networks(machine, engine_there))


def _networks(machine: Machine, engine_there: Engine) -> dict[str, str]:
    """Device by name."""
    return engine.parse_networks(machine.run(engine_there.list_networks(), timeout=QUICK).out)


def _table(machine: Machine, engine_there: Engine) -> str:
    """As nft prints it; empty if it is not there."""
    argv = [*_nft(machine, engine_there), "list", "table", *firewall.TABLE.split()]
    return machine.attempt(argv, timeout=QUICK).out


def _guard(machine: Machine, engine_there: Engine, listed: str, there: Mapping[str, str]) -> None:
    """``listed`` is the table as it was before ``there`` was: what it guards and is not there, is
    gone. Another worker may add its own meanwhile."""
    nft = _nft(machine, engine_there)
    if not there and not firewall.guards_others(listed, engine_there.program):
        if not listed:
            return
        machine.attempt([*nft, "delete", "table", *firewall.TABLE.split()], timeout=QUICK)
        there = _networks(machine, engine_there)  # or one that was made this very moment
        if not there:
            return
    own = _own_networks(machine) if _is_users(machine, engine_there) else []
    gone = firewall.guarded(listed, engine_there.program).keys() - there.values()
    _load(machine, nft, firewall.script(engine_there.program, there, gone=gone, machine=own))
    if gone:
        there = _networks(machine, engine_there)
        if gone & set(there.values()):  # one was made meanwhile, and given that bridge's name
            _load(machine, nft, firewall.script(engine_there.program, there, machine=own))


def _load(machine: Machine, nft: Sequence[str], script: str) -> None:
    machine.run([*nft, "--file", "-"], timeout=QUICK, stdin=script.encode())


def _nft(machine: Machine, engine_there: Engine) -> list[str]:
    if "nft" not in machine.facts.programs:
        raise TargetError(
            "nft is not installed on this host, so that containers would reach the host itself and"
            " its cloud's credentials. Install the package nftables, then deploy again."
        )
    return [*_inside(machine, engine_there), "nft"]


def _own_networks(machine: Machine) -> list[str]:
    every, bridges = (
        machine.run(["ip", "-o", "addr", "show", *chosen], timeout=QUICK).out
        for chosen in ([], ["type", "bridge"])
    )
    with understood("'ip addr'"):
        return firewall.networks_of(every, bridges)


def _is_users(machine: Machine, engine_there: Engine) -> bool:
    """Whether its bridges are in a network namespace of the user's, not the machine's."""
    return engine_there.program == "podman" and not machine.facts.root


def _inside(machine: Machine, engine_there: Engine) -> list[str]:
    """What runs a program where the bridges are: a user's podman keeps them in a network
    namespace of its own, and docker's belong to the machine, whoever may use docker."""
    if machine.facts.root:
        return []
    users = _is_users(machine, engine_there)
    return ["podman", "unshare", "--rootless-netns"] if users else ["sudo", "-n"]


@contextmanager
def _alone(machine: Machine) -> Iterator[None]:
    """One at a time on a machine, so that one makes a network and the next one finds it. Where it
    is two hosts by our record, see ``firewall``: the rules hold none the less."""
    with machine.lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
