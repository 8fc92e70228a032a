"""Waiting for what cannot be ended, such as a registry that is silent, until somebody cancels."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from builders.errors import BuildCancelled

_LOOK = 0.1  # seconds between looks at whether somebody cancels
T = TypeVar("T")


def unless_cancelled(work: Callable[[], T], cancel: threading.Event, *, name: str) -> T:
    """``work()``, in a thread of its own called ``name``. Raises what that raises.

    Raises BuildCancelled once ``cancel`` is set: the thread is left to itself then, and what it
    comes to is lost.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # raised again for who waits
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    while not wait([done], _LOOK).done:
        if cancel.is_set():
            raise BuildCancelled("The build was cancelled.")
    return done.result()
