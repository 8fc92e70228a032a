"""Who follows which pipeline's logs in this process; one look at the files for all of them.

A look costs a stat(2) for each log that grows, however many follow it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

EVERY = 0.05  # seconds


class Mark(NamedTuple):
    """Tells a file as it was from what it has become."""

    size: int
    inode: int
    modified: int


@dataclass(slots=True)
class _Tail:
    told: set[asyncio.Event] = field(default_factory=set)
    marks: dict[Path, Mark | None] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


# Which logs a pipeline has, by its id: written by the thread that reads rows.
_logs: dict[int, Sequence[Path]] = {}
_tails: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, _Tail]] = WeakKeyDictionary()


def watch(pipeline_id: int, logs: Sequence[Path]) -> None:
    """These are the logs of ``pipeline_id`` that may grow. Forgotten with its last follower."""
    _logs[pipeline_id] = logs


def mark_of(path: Path) -> Mark | None:
    """How a log that is a plain file is now; None for any other."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return Mark(status.st_size, status.st_ino, status.st_mtime_ns)


@contextmanager
def following(pipeline_id: int, told: asyncio.Event) -> Iterator[None]:
    """``told`` is set whenever a log of the pipeline has grown."""
    tails = _tails.setdefault(asyncio.get_running_loop(), {})
    tail = tails.setdefault(pipeline_id, _Tail())
    tail.told.add(told)
    if tail.task is None:
        tail.task = asyncio.create_task(_look(pipeline_id, tail))
    try:
        yield
    finally:
        tail.told.discard(told)
        if not tail.told:
            tail.task.cancel()
            tails.pop(pipeline_id, None)
            _logs.pop(pipeline_id, None)


async def _look(pipeline_id: int, tail: _Tail) -> None:
    while True:
        marks = {path: mark_of(path) for path in _logs.get(pipeline_id, ())}
        if marks != tail.marks:
            tail.marks = marks
            for told in tail.told:
                told.set()
        await asyncio.sleep(EVERY)
