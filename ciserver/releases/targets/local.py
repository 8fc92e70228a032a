"""This very machine, with its own podman or docker, and Caddy in front."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ciserver.releases.targets.base import EngineTarget, find_engine
from ciserver.releases.targets.engine import Engine
from ciserver.releases.targets.machine import Here
from ciserver.releases.targets.proxy import Proxy
from ciserver.releases.targets.spec import Place


class LocalTarget(EngineTarget):
    """Implements ``targets.Target``."""

    def __init__(self, engine: Engine, proxy: Proxy) -> None:
        super().__init__(Here(), engine)
        self.proxy = proxy

    @classmethod
    @contextmanager
    def open(cls, place: Place, run: Path) -> Iterator[LocalTarget]:
        """``place`` has no address: the machine is this one."""
        yield cls.here(run)

    @classmethod
    def here(cls, run: Path) -> LocalTarget:
        return cls(own_engine(), Proxy(run / "caddy.sock"))


@cache
def own_engine() -> Engine:
    """This machine's engine; asked for once. Raises NoEngine."""
    return find_engine(Here())
