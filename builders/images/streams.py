"""Byte streams: hashing, counting, compressing and inflating, each in one pass."""

from __future__ import annotations

import bz2
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol, cast

import zstandard
from isal import isal_zlib

from builders.images.layers import LayerLimits, LayerTooBig, Sink
from builders.images.tarformat import BadTar

CHUNK = 1 << 20
_GZIP = 31  # window bits of zlib that mean: with a gzip header
_XZ_MEMORY = 256 << 20  # bytes of dictionary: `xz -9` needs 65 MiB
_LEVEL = 2  # measured: 335 MB/s at ratio 2.69; level 3 is slower for little
# isal's type stub takes its exception class for an instance.
_BROKEN = (cast("type[Exception]", isal_zlib.error), zlib.error)


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Decoder(Protocol):
    """What bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class HashingSink:
    """Passes what it is given on to ``then`` (if any) and knows its digest and size."""

    def __init__(self, then: Sink | None = None) -> None:
        self._hash = hashlib.sha256()
        self._then = then
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self._hash.update(data)
        self.size += len(data)
        if self._then is not None:
            self._then.write(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class GzipSink:
    """Compresses with isal. The header holds no time and no name. Call ``close`` at the end."""

    def __init__(self, then: Sink) -> None:
        self._then = then
        self._compressor = isal_zlib.compressobj(_LEVEL, wbits=_GZIP)

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self._then.write(self._compressor.compress(data))

    def close(self) -> None:
        self._then.write(self._compressor.flush())


class ZstdSink:
    """Compresses with zstd at its usual level. Call ``close`` at the end."""

    def __init__(self, then: Sink) -> None:
        self._then = then
        self._compressor = zstandard.ZstdCompressor().compressobj()

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self._then.write(self._compressor.compress(data))

    def close(self) -> None:
        self._then.write(self._compressor.flush())


class HashingReader:
    """Reads ``source``, copies to ``then`` (if any), and refuses more than ``limit`` bytes."""

    def __init__(self, source: Readable, *, limit: int, then: Sink | None = None) -> None:
        self._source = source
        self._limit = limit
        self._sink = HashingSink(then)

    def read(self, size: int, /) -> bytes:
        data = self._source.read(min(size, self._limit - self._sink.size + 1))
        if self._sink.size + len(data) > self._limit:
            raise BadTar(f"it is longer than the {self._limit} bytes its descriptor says")
        self._sink.write(data)
        return data

    @property
    def size(self) -> int:
        return self._sink.size

    @property
    def digest(self) -> str:
        return self._sink.digest


class TarStream:
    """The uncompressed bytes of a layer blob: hashed, counted and capped as they come.

    ``compression`` is none, gzip, zstd, bzip2 or xz. Raises BadTar for bytes that do not
    inflate and LayerTooBig for a bomb, before it has been written anywhere.
    """

    def __init__(self, blob: HashingReader, compression: str, limits: LayerLimits) -> None:
        self._blob = blob
        self._limits = limits
        self._chunks = _CODECS[compression](blob)
        self._hash = hashlib.sha256()
        self._buffer = memoryview(b"")
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes. Raises BadTar at an early end."""
        if size <= len(self._buffer):
            data = self._buffer[:size].tobytes()
            self._buffer = self._buffer[size:]
            return data
        parts = []
        while size:
            part = self.read_some(size)
            if not part:
                raise BadTar("it ends in the middle")
            parts.append(bytes(part))
            size -= len(part)
        return b"".join(parts)

    def foresee(self, size: int) -> None:
        """Raise LayerTooBig at once where ``size`` bytes more would exceed the limit."""
        if self.size - len(self._buffer) + size > self._limits.size:
            raise self._too_big()

    def read_some(self, most: int) -> memoryview:
        """At least one and at most ``most`` bytes; empty at the end. Valid until the next call."""
        if not self._buffer:
            self._fill()
        part = self._buffer[:most]
        self._buffer = self._buffer[most:]
        return part

    def skip(self, size: int) -> None:
        while size:
            part = len(self.read_some(min(size, CHUNK)))
            if not part:
                raise BadTar("it ends in the middle")
            size -= part

    def drain(self) -> None:
        """Read to the end of the blob: what follows the archive is part of both digests."""
        while self._buffer or self._fill():
            self._buffer = memoryview(b"")
        while self._blob.read(CHUNK):
            pass

    def _fill(self) -> bool:
        chunk = next(self._chunks, b"")
        self._hash.update(chunk)
        self.size += len(chunk)
        self._check()
        self._buffer = memoryview(chunk)
        return bool(chunk)

    def _check(self) -> None:
        limits = self._limits
        if self.size > limits.size:
            raise self._too_big()
        if self.size > limits.ratio_from and self.size > self._blob.size * limits.ratio:
            raise LayerTooBig(
                f"The layer inflates more than {limits.ratio} fold, over the size limit "
                "for such a ratio."
            )

    def _too_big(self) -> LayerTooBig:
        return LayerTooBig(f"The layer exceeds the size limit of {self._limits.size >> 20} MiB.")


def _plain(source: Readable) -> Iterator[bytes]:
    while data := source.read(CHUNK):
        yield data


def _gunzip(source: Readable) -> Iterator[bytes]:
    """All members of a gzip stream, at most CHUNK bytes at a time whatever they inflate to."""
    inflater = isal_zlib.decompressobj(wbits=_GZIP)
    fed = False
    pending = b""
    try:
        while pending or (pending := source.read(CHUNK // 4)):
            if inflater.eof:
                if not pending.strip(b"\0"):
                    pending = b""
                    continue
                inflater = isal_zlib.decompressobj(wbits=_GZIP)
            fed = True
            data = inflater.decompress(pending, CHUNK)
            pending = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            if data:
                yield data
        while not inflater.eof:
            data = inflater.decompress(b"", CHUNK)
            if not data:
                break
            yield data
    except _BROKEN as error:
        raise BadTar(f"its gzip data is broken ({error})") from error
    if not fed or not inflater.eof:
        raise BadTar("its gzip data ends in the middle")


def _unzstd(source: Readable) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=128 << 20)
    try:
        with decompressor.stream_reader(
            cast(BinaryIO, source), read_size=CHUNK // 4, read_across_frames=True, closefd=False
        ) as reader:
            while data := reader.read(CHUNK):
                yield data
    except zstandard.ZstdError as error:
        raise BadTar(f"its zstd data is broken ({error})") from error


def _stepwise(name: str, start: Callable[[], _Decoder]) -> Callable[[Readable], Iterator[bytes]]:
    """Streams that may follow one another, at most CHUNK bytes at a time."""

    def read(source: Readable) -> Iterator[bytes]:
        decoder, pending = start(), b""
        try:
            while True:
                if decoder.eof:
                    pending = decoder.unused_data or source.read(CHUNK // 4)
                    if not pending.strip(b"\0"):
                        return
                    decoder = start()
                elif decoder.needs_input and not pending:
                    pending = source.read(CHUNK // 4)
                    if not pending:
                        raise BadTar(f"its {name} data ends in the middle")
                data = decoder.decompress(pending, CHUNK)
                pending = b""
                if data:
                    yield data
        except (OSError, ValueError, EOFError, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # not the data's fault
            raise BadTar(f"its {name} data is broken ({error})") from error

    return read


_CODECS = {
    "none": _plain,
    "gzip": _gunzip,
    "zstd": _unzstd,
    "bzip2": _stepwise("bzip2", bz2.BZ2Decompressor),
    "xz": _stepwise("xz", lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)),
}
