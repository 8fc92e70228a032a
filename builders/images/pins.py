"""What work in progress uses: noted in a locked folder, so that pruning leaves it alone.

A folder under ``pins/`` belongs to one piece of work and is locked while that lasts; each empty
file in it names a layer, blob or image. A process that dies loses the lock, and so its notes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from builders.images.disk import Disk


class Pins:
    """The notes of one store. Safe for threads and processes."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._lock = threading.Lock()
        self._open: dict[Path, set[str]] = {}

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Whatever this store hands out during the block stays until the block's end."""
        with self._disk.staging("pins") as folder:
            with self._lock:
                self._open[folder] = set()
            try:
                yield
            finally:
                with self._lock:
                    del self._open[folder]

    def note(self, name: str) -> None:
        """Let all work in progress of this process hold ``name``; under its "use" lock only."""
        with self._lock:
            for folder, known in self._open.items():
                if name not in known:
                    (folder / name).touch()
                    known.add(name)

    def held(self, name: str) -> bool:
        """Whether work of a living process has noted ``name``; ask under its "use" lock only."""
        return any(_is_locked(note.parent) for note in self._disk.root.glob(f"pins/*/{name}"))


def _is_locked(folder: Path) -> bool:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
