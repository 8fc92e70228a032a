"""Work whose end nobody has to wait for: the kernel takes 30 to 60 ms to remove a device.

Threads that the interpreter waits for at its end. When the process is killed, what they had
to do is the reaper's, by the directory that they remove last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_lock = threading.Lock()
_busy: set[threading.Thread] = set()


def do(work: Callable[[], None]) -> None:
    """Start ``work``, which raises nothing."""

    def working() -> None:
        try:
            work()
        finally:
            with _lock:
                _busy.discard(thread)

    thread = threading.Thread(target=working, name="sandbox-network-end")
    with _lock:
        _busy.add(thread)
    thread.start()


def settle() -> None:
    """Wait until all that was begun so far is done."""
    with _lock:
        busy = list(_busy)
    for thread in busy:
        thread.join()
