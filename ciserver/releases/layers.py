"""The names in a layer (OCI image-spec, "Image Layer Filesystem Changeset"); nothing is extracted.

Reads a hostile layer in bounded time and memory: what it inflates to, how many entries it has
and how long their names are is all limited.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from io import BytesIO

import zstandard

MOST_INFLATED = 64 * 1024 * 1024  # bytes
MOST_ENTRIES = 20_000
MOST_NAME = 300  # characters
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
WHITEOUT = ".wh."
OPAQUE = f"{WHITEOUT}{WHITEOUT}.opq"  # all that a folder held before


class BadLayer(Exception):
    """The bytes are no layer, or one too large to be looked through."""


def names(blob: bytes) -> Iterator[str]:
    """``+ path`` for each file of a compressed tar, ``- path`` for each that it takes away.
    Raises BadLayer."""
    plain = BytesIO(_inflated(blob))
    try:
        with tarfile.open(fileobj=plain, mode="r:") as tar:
            for number, member in enumerate(tar):
                if number >= MOST_ENTRIES:
                    return
                if not member.isdir():
                    yield _word(member.name)
    except (tarfile.TarError, ValueError, EOFError, OSError) as error:
        raise BadLayer(str(error)) from error


def _word(path: str) -> str:
    folder, slash, name = path.removeprefix("./").rpartition("/")
    sign = "-" if name.startswith(WHITEOUT) else "+"
    name = "" if name == OPAQUE else name.removeprefix(WHITEOUT)
    return f"{sign} {folder}{slash}{name}"[:MOST_NAME]


def _inflated(data: bytes) -> bytes:
    most = MOST_INFLATED + 1
    try:
        if data.startswith(GZIP):
            plain = zlib.decompressobj(wbits=31).decompress(data, most)
        elif data.startswith(ZSTD):
            with zstandard.ZstdDecompressor().stream_reader(data) as reader:
                plain = reader.read(most)
        else:
            plain = data
    except (zlib.error, zstandard.ZstdError) as error:
        raise BadLayer(f"it cannot be inflated: {error}") from error
    if len(plain) >= most:
        raise BadLayer("it inflates to too much")
    return plain
