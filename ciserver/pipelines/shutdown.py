"""Knowing that the web process is asked to stop, so that event streams end by themselves.

uvicorn waits for open responses and tells applications nothing; a stream without end would
hold it until it is killed. Our handler runs before the server's own and then calls it.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

_stopping = threading.Event()
_watched: set[signal.Signals] = set()


def stopping() -> bool:
    return _stopping.is_set()


def watch() -> None:
    """Start to notice SIGTERM and SIGINT. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if number in _watched or not callable(before):
            continue
        _watched.add(number)
        signal.signal(number, _chained(before))


def _chained(before: signal._HANDLER) -> signal._HANDLER:
    def handler(number: int, frame: FrameType | None) -> None:
        _stopping.set()
        if callable(before):
            before(number, frame)

    return handler
