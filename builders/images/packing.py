"""Compressing a layer in a thread of its own while it is hashed: its tree is read only once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from builders.images.blobs import Blobs
from builders.images.digests import Descriptor
from builders.images.streams import HashingSink

# A smaller layer is compressed on demand: a thread and a file for it would cost more.
FROM = 4 << 20
_AHEAD = 16  # writes under way, of at most 1 MiB


class Codec(Protocol):
    def write(self, data: bytes, /) -> None: ...

    def close(self) -> None: ...


class Packer:
    """A sink for a layer's tar. Leave the ``with`` block, or the thread waits for ever.

    It never fails the writer: what could not be packed is compressed again on demand.
    """

    def __init__(
        self, blobs: Blobs, media_type: str, codec: Callable[[HashingSink], Codec], *, start: int
    ) -> None:
        self._blobs = blobs
        self._media_type = media_type
        self._codec = codec
        self._from = start
        self._held: list[bytes] = []
        self._size = 0
        self._queue: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._thread: threading.Thread | None = None
        self._stack = ExitStack()
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._join()
        self._stack.close()

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take a part of the tar."""
        part = bytes(data)
        if self._thread is not None:
            self._queue.put(part)
            return
        self._held.append(part)
        self._size += len(part)
        if self._size >= self._from:
            self._start()

    def finish(self) -> Descriptor | None:
        """Keep the blob of all that was written. None where it was too little, or failed."""
        if self._thread is None:
            return None
        self._join()
        if self._failed:
            return None
        self._file.flush()
        self._blobs.keep(self._draft, self._packed.digest)
        return Descriptor(self._media_type, self._packed.digest, self._packed.size)

    def _start(self) -> None:
        self._file, self._draft = self._stack.enter_context(self._blobs.draft())
        self._packed = HashingSink(self._file)
        self._thread = threading.Thread(target=self._pack, name="pack", daemon=True)
        self._thread.start()
        for part in self._held:
            self._queue.put(part)
        self._held.clear()

    def _pack(self) -> None:
        codec = self._codec(self._packed)
        try:
            while (part := self._queue.get()) is not None:
                codec.write(part)
            codec.close()
        except Exception:  # a full disk: whoever needs the blob will hear of it
            self._failed = True
            while self._queue.get() is not None:
                pass

    def _join(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
