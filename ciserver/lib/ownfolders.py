"""Folders that a process has for itself, of which the next one finds what a killed one left.

Each is locked (flock(2)) from the moment it has its name until its block ends; the kernel takes the
lock from a process that dies, whatever process has its number later.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs, and the folders in it are 0700
_NEW = ".new-"


@contextmanager
def own_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder (0700) below ``parent``, gone with all in it when the block ends.

    Those of ``prefix`` whose process was killed go first.
    """
    forget_dead(parent, prefix)
    new = Path(tempfile.mkdtemp(prefix=_NEW, dir=parent))
    folder = parent / f"{prefix}{os.getpid()}-{uuid4().hex[:6]}"
    lock = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.rename(folder)
        yield folder
    finally:
        for path in (folder, new):
            shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def forget_dead(parent: Path, prefix: str) -> None:
    """Remove the folders of ``prefix`` that no process holds; another user's stay."""
    for folder in parent.glob(f"{prefix}*-*"):
        if folder.name.startswith(_NEW):
            continue
        with suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where it is in use
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(fd)
