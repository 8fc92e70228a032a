"""What a process has read of commits lately, so that building one again lists nothing again.

Commits never change, so nothing here can be out of date. A warm worker that builds a commit of
20,000 files once more would spend most of its time on listing them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

MOST_ENTRIES = 200_000  # about 60 MB
Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Values by key, those used last, of at most ``most`` entries in all. Safe for threads."""

    def __init__(self, most: int = MOST_ENTRIES) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._total = 0

    def get(self, key: Hashable) -> Value | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def keep(self, key: Hashable, value: Value, entries: int) -> None:
        """Nothing may change ``value`` from now on."""
        if entries > self._most:
            return
        with self._lock:
            _, before = self._kept.pop(key, (None, 0))
            self._kept[key] = (value, entries)
            self._total += entries - before
            while self._total > self._most:
                _, (_, gone) = self._kept.popitem(last=False)
                self._total -= gone
