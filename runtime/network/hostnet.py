"""HOST: the host's own network. For administrators' own tools only."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.network import directory
from runtime.state import StateDirectory

HOST_RESOLV_CONF = Path("/etc/resolv.conf")


@contextmanager
def opened(state: StateDirectory) -> Iterator[Path]:
    """A network directory with /sys of the host's network and its name servers."""
    with directory.opened(state) as (_, path):
        directory.populate(path, fresh=False)
        target = path / directory.RESOLV_CONF
        if HOST_RESOLV_CONF.exists():
            shutil.copyfile(HOST_RESOLV_CONF, target)
        else:
            target.touch()
        target.chmod(0o644)
        yield path
