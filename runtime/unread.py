"""What sandboxes wrote whose owner was killed: kept for whoever asks, a day at the longest.

    root/unread/<id>/record.json   as it was in the box; ``note`` says what it was to its owner
                     stdout stderr   all of it, from its beginning; absent where there is nothing

A reaper puts it there, whole or not at all. It holds whatever the program printed, unmasked.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.outlets import NAMES
from runtime.output import Stream
from runtime.removal import remove_path
from runtime.state import RECORD, Box, StateDirectory, boxes_in

MAXIMUM = 100
LONGEST = 24 * 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Unread:
    """The output of one sandbox. ``note`` is its spec's."""

    id: str
    note: str
    path: Path

    def file(self, stream: Stream) -> Path:
        """It may be absent."""
        return self.path / NAMES[list(Stream).index(stream)]


def listed(state: StateDirectory) -> list[Unread]:
    """All that is kept, in the order of the ids."""
    return [Unread(box.record.id, box.record.note, box.path) for box in boxes_in(state.unread_dir)]


@contextmanager
def alone(state: StateDirectory) -> Iterator[None]:
    """Nobody else who asks for this is in such a block at the same time."""
    with (state.root / "unread.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def drop(state: StateDirectory, id: str) -> None:
    """It has been read. An unknown one is fine."""
    remove_path(state.unread_dir / id)


def keep(state: StateDirectory, box: Box) -> bool:
    """Move the output of a box, whose sandbox is gone, to here; False where there is none.

    Killed at any moment, it may be called again.
    """
    files = [box.path / name for name in NAMES]
    if not any(file.exists() and file.stat().st_size for file in files):
        return False
    for path in box.path.iterdir():
        if path.is_dir() and not path.is_symlink():
            remove_path(path)
        elif path.name != RECORD and path not in files:
            path.unlink()
    drop(state, box.record.id)
    box.path.rename(state.unread_dir / box.record.id)
    return True


def prune(state: StateDirectory) -> list[str]:
    """Remove what nobody asked for in time, and the oldest of too many."""
    done = []
    by_age = sorted((path.stat().st_mtime, path.name) for path in state.unread_dir.iterdir())
    for number, (since, name) in enumerate(reversed(by_age)):
        if number >= MAXIMUM or since < time.time() - LONGEST:
            with suppress(OSError):
                drop(state, name)
                done.append(f"removed the unread output of sandbox {name}")
    return done
