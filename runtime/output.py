"""Copies a sandbox's two output streams to a callback, up to a limit."""

from __future__ import annotations

import enum
import os
import selectors
from collections.abc import Callable

CHUNK = 64 * 1024


class Stream(enum.Enum):
    """Which stream bytes came from; the value is the fd inside the sandbox."""

    STDOUT = 1
    STDERR = 2


class Pump:
    """Reads until both streams end. ``count`` is how many bytes were passed on.

    The OCI runtime writes to the same stderr when it fails before the program runs; what
    comes first and looks like its words is held until ``flush`` says that it was not.
    """

    def __init__(
        self, runtime: str, limit: int | None, on_output: Callable[[Stream, bytes], None] | None
    ) -> None:
        self._limit = limit
        self._on_output = on_output or (lambda stream, data: None)
        self._words = f"{runtime} ".encode()
        self._held: list[bytes] = []
        self.count = 0

    def copy(self, stdout: int, stderr: int) -> bool:
        """True when both streams ended; False as soon as the limit is exceeded."""
        with selectors.DefaultSelector() as selector:
            for fd, stream in ((stdout, Stream.STDOUT), (stderr, Stream.STDERR)):
                selector.register(fd, selectors.EVENT_READ, stream)
            while selector.get_map():
                for key, _ in selector.select():
                    data = os.read(key.fd, CHUNK)
                    if not data:
                        selector.unregister(key.fd)
                    elif not self._take(key.data, data):
                        return False
        return True

    def _take(self, stream: Stream, data: bytes) -> bool:
        if stream is Stream.STDERR and self._looks_foreign(data):
            self._held.append(data)
            return True
        self.flush()
        return self._pass(stream, data)

    def _looks_foreign(self, data: bytes) -> bool:
        return bool(self._held) or (self.count == 0 and data.startswith(self._words))

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

    def drain(self, stdout: int, stderr: int) -> None:
        """Read and drop the rest, so that the OCI runtime is not stuck writing it."""
        self._on_output = lambda stream, data: None
        self._limit = None
        kept, self._words, self._held = self.count, b"\0", []
        self.copy(stdout, stderr)
        self.count = kept
