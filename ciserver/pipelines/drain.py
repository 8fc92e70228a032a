"""Knowing, in a worker's pool processes, that the worker is asked to stop.

Celery tells its main process alone; a pool process goes on until its task has ended, which may
take hours. One byte of shared memory, made before the fork, tells them. No lock: a process that
is killed while it holds one would stop all others.
"""

from __future__ import annotations

import mmap

from celery.signals import worker_shutting_down

_asked = mmap.mmap(-1, 1)


def asked() -> bool:
    """Whether this worker takes no more work, and hands back what it has."""
    return _asked[0] != 0


def begin(**_: object) -> None:
    _asked[0] = 1


def end() -> None:
    """Undo ``begin``; a worker never does."""
    _asked[0] = 0


worker_shutting_down.connect(begin)
