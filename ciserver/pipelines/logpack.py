"""Logs of ended jobs, packed: compressed in pieces, with an index of where each begins.

A pack is a row of zstd frames (RFC 8878), each of whole records and about 256 KiB of text, and at
its end a skippable frame with the index: for each frame its place in the pack, the place of its
text and the number of lines before it, little-endian, 8 bytes each; once more the same for the
end; then the index's length (4 bytes) and ``GLOG``. ``zstdcat`` reads it as it is.
"""

from __future__ import annotations

import io
import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import zstandard

from ciserver.lib.problems import Refused

FRAME = 256 * 1024
_ENTRY = struct.Struct("<QQQ")
_TAIL = struct.Struct("<I4s")
_SKIPPABLE = struct.Struct("<II")
_MAGIC, _SKIPPED = b"GLOG", 0x184D2A50
_MOST_ENTRIES = 1_000_000
Fetch = Callable[[int, int], bytes]  # offset and length -> those bytes of a pack


class NotAPack(Refused):
    """The bytes are no pack, or not all of one. Also raised as a log is read, frame by frame."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"This log is damaged where it is kept: {why}.",
            code="logs.damaged",
            hint="Run the pipeline again for a new one; whoever runs Gantry looks at the disk, or"
            " at the object storage, that holds its logs, and may have a copy.",
            status=410,
        )


@dataclass(frozen=True, slots=True)
class Index:
    """Places of the frames in the pack and of their text, and the lines before each; the last of
    each is the end."""

    packed: tuple[int, ...]
    plain: tuple[int, ...]
    lines: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of text."""
        return self.plain[-1]

    def before_line(self, number: int) -> tuple[int, int]:
        """Lines and bytes before the frame that holds line ``number`` (from 1)."""
        frame = min(bisect_right(self.lines, number - 1), len(self.lines)) - 1
        return self.lines[frame], self.plain[frame]


def pack(source: BinaryIO, target: BinaryIO) -> Index:
    """Write the pack of a log. What follows the last whole record is left out."""
    compress = zstandard.ZstdCompressor(level=6).compress
    places = [(0, 0, 0)]
    for text in _frames(source):
        data = compress(text)
        target.write(data)
        packed, plain, lines = places[-1]
        places.append((packed + len(data), plain + len(text), lines + text.count(b"\n")))
    body = b"".join(_ENTRY.pack(*place) for place in places)
    body += _TAIL.pack(len(body), _MAGIC)
    target.write(_SKIPPABLE.pack(_SKIPPED, len(body)) + body)
    return Index(*map(tuple, zip(*places, strict=True)))


def read_index(fetch: Fetch, size: int) -> Index:
    """The index of a pack of ``size`` bytes. Raises NotAPack."""
    if size < _TAIL.size:
        raise NotAPack("it is too short")
    length, magic = _TAIL.unpack(fetch(size - _TAIL.size, _TAIL.size))
    if magic != _MAGIC or not 0 < length <= min(size - _TAIL.size, _MOST_ENTRIES * _ENTRY.size):
        raise NotAPack("it has no index")
    body = fetch(size - _TAIL.size - length, length)
    if len(body) != length or length % _ENTRY.size:
        raise NotAPack("it has half an index")
    index = Index(*map(tuple, zip(*_ENTRY.iter_unpack(body), strict=True)))
    # A reader goes on from frame to frame until it is where it wants to be.
    if any(one >= after for one, after in pairwise(index.plain)) or index.plain[0]:
        raise NotAPack("its index is out of order")
    return index


class PackedLog(io.RawIOBase):
    """A pack read as though it were the log. ``frame`` gives the text of a frame by number."""

    def __init__(self, index: Index, frame: Callable[[int], bytes]) -> None:
        self.index = index
        self._frame = frame
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.index.size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1, /) -> bytes:
        left = self.index.size - self._place
        left = max(0, left if size < 0 else min(size, left))
        pieces = []
        while left:
            number = bisect_right(self.index.plain, self._place) - 1
            start = self._place - self.index.plain[number]
            piece = self._frame(number)[start : start + left]
            pieces.append(piece)
            self._place += len(piece)
            left -= len(piece)
        return b"".join(pieces)


def open_pack(path: Path) -> PackedLog:
    """Raises FileNotFoundError, NotAPack."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
    index = _index(path, size)
    return PackedLog(index, lambda number: _frame(path, size, number))


def frame_of(index: Index, number: int, fetch: Fetch) -> bytes:
    """The text of one frame. Raises NotAPack when it is not what the index says."""
    start, end = index.packed[number : number + 2]
    size = index.plain[number + 1] - index.plain[number]
    data = fetch(start, end - start)
    try:
        # Asked first: of a damaged head it may be anything, and that much memory would be taken.
        if zstandard.frame_content_size(data) != size:
            raise NotAPack(f"its frame {number} is not what the index says")
        return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise NotAPack(f"its frame {number} cannot be read ({error})") from None


# A pack never changes, but its name may be used again by tests: hence the size in the keys.
@lru_cache(maxsize=256)
def _index(path: Path, size: int) -> Index:
    return read_index(lambda offset, length: _fetch(path, offset, length), size)


@lru_cache(maxsize=64)  # about 16 MiB
def _frame(path: Path, size: int, number: int) -> bytes:
    return frame_of(_index(path, size), number, lambda offset, length: _fetch(path, offset, length))


def _fetch(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), length, offset)


def _frames(source: BinaryIO) -> Iterator[bytes]:
    """The log in pieces of whole records."""
    rest = b""
    while data := source.read(FRAME):
        data = rest + data
        cut = data.rfind(b"\n") + 1
        rest = data[cut:]
        if cut:
            yield data[:cut]
