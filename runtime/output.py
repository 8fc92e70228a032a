"""Copies a sandbox's two output streams to a callback, up to a limit."""

from __future__ import annotations

import enum
import itertools
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass

from runtime.disk import words
from runtime.outlets import Outlets
from runtime.spec import Outcome

MOMENT = 0.05  # seconds
HELD_MAXIMUM = 4  # pieces


class Stream(enum.Enum):
    """Which stream bytes came from; the value is the fd inside the sandbox."""

    STDOUT = 1
    STDERR = 2


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes as one read gave them. ``number`` is 1, 2, 3, ... over both streams, without a gap;
    ``at`` is in seconds since ``numbered`` was called."""

    number: int
    at: float
    stream: Stream
    data: bytes


def numbered(take: Callable[[Piece], None]) -> Callable[[Stream, bytes], None]:
    """An ``on_output`` for one run whose pieces are numbered in the order in which they come."""
    started, numbers = time.monotonic(), itertools.count(1)

    def on_output(stream: Stream, data: bytes) -> None:
        take(Piece(next(numbers), time.monotonic() - started, stream, data))

    return on_output


class Pump:
    """Reads until both streams end. ``count`` is how many bytes were passed on.

    An OCI runtime that fails before the program runs says so on the same stderr. What
    comes first there is held for a moment, and longer if ``failed`` (by the runtime's own
    log) says yes; the caller then calls ``flush``, or not.
    """

    def __init__(
        self,
        limit: int | None,
        on_output: Callable[[Stream, bytes], None] | None,
        failed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._limit = limit
        self._on_output = on_output or (lambda stream, data: None)
        self._failed = failed
        self._held: list[bytes] = []
        self.count = 0

    def follow(self, outlets: Outlets, end: Callable[[Outcome, str], None]) -> None:
        """Copy until both streams end. Above the limit: ``end`` it, and drop what still comes."""
        if not self.copy(outlets):
            outlets.stop_keeping()
            end(Outcome.OUTPUT, f"output limit of {words(self._limit or 0)} reached")
            self.drain(outlets)

    def copy(self, outlets: Outlets) -> bool:
        """True when both streams ended; False as soon as the limit is exceeded."""
        with selectors.DefaultSelector() as selector:
            for fd, stream in zip(outlets.readers, Stream, strict=True):
                selector.register(fd, selectors.EVENT_READ, stream)
            while selector.get_map():
                events = selector.select(MOMENT if self._held else None)
                if not events and not self._failed():
                    self.flush()
                for key, _ in events:
                    data = outlets.read(key.fd)
                    if not data:
                        selector.unregister(key.fd)
                    elif not self._take(key.data, data):
                        return False
        return True

    def _take(self, stream: Stream, data: bytes) -> bool:
        if stream is Stream.STDERR and self.count == 0:
            self._held.append(data)
            if len(self._held) < HELD_MAXIMUM:
                return True
            data = self._held.pop()
        self.flush()
        return self._pass(stream, data)

    def flush(self) -> None:
        """Pass on what was held."""
        for data in self._held:
            self._pass(Stream.STDERR, data)
        self._held.clear()

    def _pass(self, stream: Stream, data: bytes) -> bool:
        if self._limit is not None and self.count + len(data) > self._limit:
            data = data[: self._limit - self.count]
            full = True
        else:
            full = False
        if data:
            self.count += len(data)
            self._on_output(stream, data)
        return not full

    def drain(self, outlets: Outlets) -> None:
        """Read and drop the rest, so that the OCI runtime is not stuck writing it."""
        self._on_output = lambda stream, data: None
        self._limit = None
        kept, self._held = self.count, []
        self.copy(outlets)
        self.count = kept
