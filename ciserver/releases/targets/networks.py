"""A network of its own for each environment, and the firewall before all of them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ciserver.releases.targets import commands, engine, firewall
from ciserver.releases.targets.engine import Engine
from ciserver.releases.targets.errors import TargetError

QUICK = 30.0  # seconds
LOCK = Path("/run/gantry-deployed.lock")


def ensure(engine_here: Engine, name: str) -> None:
    """Have the network ``name``, guarded. May be called again, and after the rules were lost
    (a reboot, a restart of nftables). Raises TargetError: then no container may start there.
    """
    with _alone():
        if commands.attempt(engine_here.inspect_network(name), timeout=QUICK).code != 0:
            commands.run(engine_here.create_network(name), timeout=QUICK)
        _guard(engine_here)


def guard(engine_here: Engine) -> None:
    """Put the rules back, should somebody have flushed them."""
    with _alone():
        _guard(engine_here)


def remove_unused(engine_here: Engine, name: str) -> None:
    """Away with the network ``name``, unless a container is in it."""
    with _alone():
        if commands.attempt(engine_here.remove_network(name), timeout=QUICK).code == 0:
            _guard(engine_here)


def _guard(engine_here: Engine) -> None:
    if not commands.found("nft"):
        raise TargetError(
            "nft is not installed on this host, so that containers would reach the host itself and"
            " its cloud's credentials. Install the package nftables, then deploy again."
        )
    listed = commands.run(engine_here.list_networks(), timeout=QUICK).out
    bridges = engine.parse_bridges(listed)
    script = firewall.script(bridges).encode()
    commands.run(["nft", "--file", "-"], timeout=QUICK, stdin=script)


@contextmanager
def _alone() -> Iterator[None]:
    """One at a time on this machine: a list of bridges that is loaded late would take out of the
    set what another worker has just put in."""
    with LOCK.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
