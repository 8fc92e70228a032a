"""Folders in memory, for what must be on no disk: secrets, keys, the sockets of agents.

Each has its process in its name (``runtime.owner``), so that what a killed one left is told
from what a living one uses, also when its number was given out again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime import owner

MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs, and the folders in it are 0700
KINDS = ("build", "secrets")


@contextmanager
def memory_folder(kind: str = "build") -> Iterator[Path]:
    """A new folder that only this user can reach, gone with all in it when the block ends.

    ``kind``, one of KINDS, stands in its name.
    """
    forget_dead()
    folder = Path(tempfile.mkdtemp(prefix=f"{_prefix(kind)}{owner.token()}-", dir=MEMORY))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def forget_dead() -> None:
    """Remove the folders of processes that were killed."""
    for prefix in map(_prefix, KINDS):
        for folder in MEMORY.glob(f"{prefix}*"):
            if not owner.is_alive(folder.name.removeprefix(prefix).partition("-")[0]):
                shutil.rmtree(folder, ignore_errors=True)


def _prefix(kind: str) -> str:
    return f"gantry-{kind}-"
