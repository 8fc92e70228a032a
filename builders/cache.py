"""Which layer a step made last time: one small file per key, in lanes of trust.

A key is the hash of everything that shapes a step's result: the layers below
(by diff id), the instruction, its content, and its environment. So an entry can
be used from any branch or image that reaches the same point; what must not
happen is that an untrusted build writes what a trusted one reads (CVE-2022-1423):
a build writes one lane alone, its scope, and reads that and ``also_read``.

Entries are written whole and renamed into place; a torn or stale one is a miss.
What this machine does not know may be known to others: ``Shared``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builders.images.layerstore import Layer
from builders.waiting import unless_cancelled

_FORMAT = "gantry step 1"


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """``diff_id`` is None for a step that changed no file."""

    diff_id: str | None
    seconds: float = 0.0  # what the step took when it ran


class Shared(Protocol):
    """The same lanes where other machines see them. Called from any thread; never raises."""

    def find(self, key: str) -> CacheEntry | None:
        """What another machine has kept under ``key`` in a lane that may be read."""

    def fetch(self, diff_id: str) -> Layer | None:
        """The layer, from now on in this machine's store."""

    def note(self, key: str, entry: CacheEntry) -> None:
        """A step of this build came to ``entry``."""


class StepCache:
    """Lanes below ``root``. Safe for any number of threads and processes.

    Asking others may take long: it ends with BuildCancelled once ``cancel`` is set.
    """

    def __init__(
        self,
        root: Path,
        *,
        scope: str,
        also_read: Sequence[str] = (),
        shared: Shared | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._write = root / lane_name(scope)
        self._read = (self._write, *(root / lane_name(other) for other in also_read))
        self._shared = shared
        self._cancel = cancel or threading.Event()

    def get(self, key: str) -> CacheEntry | None:
        """What is known under ``key``, here or elsewhere."""
        entry = self._local(key)
        shared = self._shared
        if shared is None:
            return entry
        if entry is None:
            entry = unless_cancelled(lambda: shared.find(key), self._cancel, name="shared-cache")
            if entry is None:
                return None
            self._keep(key, entry)
        shared.note(key, entry)
        return entry

    def fetch(self, diff_id: str) -> Layer | None:
        """A layer that an entry names and the store has not, from where other machines keep it."""
        shared = self._shared
        if shared is None:
            return None
        return unless_cancelled(lambda: shared.fetch(diff_id), self._cancel, name="shared-cache")

    def put(self, key: str, entry: CacheEntry) -> None:
        """Let ``key`` mean ``entry`` in the lane that is written."""
        self._keep(key, entry)
        if self._shared is not None:
            self._shared.note(key, entry)

    def _local(self, key: str) -> CacheEntry | None:
        for lane in self._read:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                data = json.loads((lane / key[:2] / key).read_bytes())
                diff_id = data["diff_id"]
                if diff_id is None or isinstance(diff_id, str):
                    os.utime(lane / key[:2] / key)  # pruning goes by the last use
                    return CacheEntry(diff_id, float(data["seconds"]))
        return None

    def _keep(self, key: str, entry: CacheEntry) -> None:
        folder = self._write / key[:2]
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        data = {"diff_id": entry.diff_id, "seconds": entry.seconds, "made": int(time.time())}
        fd, name = tempfile.mkstemp(dir=folder, prefix=".new-")
        try:
            with os.fdopen(fd, "w") as stream:
                json.dump(data, stream)
            Path(name).rename(folder / key)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def step_key(*parts: object) -> str:
    """A key from JSON-like values; tuples and sorted items only, so that it is stable."""
    text = json.dumps([_FORMAT, *parts], separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def lane_name(scope: str) -> str:
    """A lane's name for files and tags."""
    return hashlib.sha256(scope.encode()).hexdigest()[:32]
