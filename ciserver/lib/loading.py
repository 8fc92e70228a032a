"""Garbage collections that find nothing: those while a process loads, and those at its end.

Each of them looks at 150,000 objects that are there to stay: a third of the processor's time that
a process takes to start and to end.
"""

from __future__ import annotations

import atexit
import gc
from typing import Any

_WHILE_LOADING = 50_000  # new objects between two collections


def begin(**_: Any) -> None:
    """A process begins to load: look rarely, and not at all when it ends."""
    gc.set_threshold(_WHILE_LOADING)
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)  # what is frozen is not looked at


def done(**_: Any) -> None:
    """Whatever stays for good is there: never look at it, and at the rest as usual.

    What a process forks then shares the pages of what is frozen, which a collection would write to.
    """
    gc.freeze()
    gc.set_threshold(700)
