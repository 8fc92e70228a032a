"""The files of a layer and of an image (OCI image-spec, "Image Layer Filesystem Changeset").

Nothing is extracted. A layer is hostile until shown otherwise: what it inflates to, how many
entries it has, how long their names and their headers are is all limited, and it is read as a
stream, so that a large one takes time and no memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import zstandard
from isal import igzip, igzip_lib

MOST_UNPACKED = 2 * 1024**3  # bytes of a layer's tar
MOST_ENTRIES = 100_000
MOST_NAME = 1_000  # characters
MOST_NAMES = 16 * 1024 * 1024  # characters of all of them
MOST_PACKAGES = 20_000
MOST_WORD = 200  # characters of a package's name or version
MOST_AT_ONCE = 1024 * 1024  # bytes: a pax header says itself how long it is
MOST_DATABASE = 16 * 1024 * 1024  # bytes of a package database
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
WHITEOUT = ".wh."
OPAQUE = f"{WHITEOUT}{WHITEOUT}.opq"
DPKG = re.compile(r"var/lib/dpkg/status(\.d/[^/]+)?\Z")
APK = "lib/apk/db/installed"
UNREADABLE = (
    tarfile.TarError,
    zlib.error,
    zstandard.ZstdError,
    cast("type[Exception]", igzip_lib.IsalError),  # its stubs know it as an instance
)

File = tuple[int, str]  # bytes, and what tells contents apart


class BadLayer(Exception):
    """The bytes are no layer, or one too large to be looked through."""


@dataclass(slots=True)
class Listing:
    """``files`` by path; ``gone`` are paths that it deletes, ``opaque`` folders that it empties."""

    files: dict[str, File] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    opaque: list[str] = field(default_factory=list)
    packages: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.files.values())


def read(chunks: Iterable[bytes]) -> Listing:
    """The listing of a compressed tar that comes in ``chunks``. Raises BadLayer."""
    plain = _Forward(_inflating(io.BufferedReader(_Chunks(iter(chunks)), 64 * 1024)))
    found = Listing()
    try:
        with tarfile.open(fileobj=cast("BinaryIO", plain), mode="r:") as tar:
            named = 0
            for number, member in enumerate(_members(tar)):
                named += len(member.name)
                if number >= MOST_ENTRIES or named > MOST_NAMES:
                    raise BadLayer(f"it has more than {MOST_ENTRIES} entries, or too long names")
                _note(found, member, plain)
    except (*UNREADABLE, ValueError, EOFError, OSError, RecursionError) as error:
        raise BadLayer(f"it cannot be read: {error}") from error
    return found


def packed(listing: Listing) -> bytes:
    text = json.dumps([listing.files, listing.gone, listing.opaque], separators=(",", ":"))
    return zstandard.compress(text.encode())


def unpacked(data: bytes | memoryview) -> Listing:
    """What ``packed`` gave; an empty listing for none."""
    if not data:
        return Listing()
    files, gone, opaque = json.loads(zstandard.decompress(bytes(data)))
    return Listing({path: (size, mark) for path, (size, mark) in files.items()}, gone, opaque)


def flatten(layers: Iterable[Listing]) -> tuple[dict[str, File], list[int]]:
    """The files that a container sees, and of each layer the bytes that it does not."""
    seen: dict[str, tuple[File, int]] = {}
    wasted: list[int] = []

    def lose(path: str) -> None:
        (size, _), layer = seen.pop(path)
        wasted[layer] += size

    for number, listing in enumerate(layers):
        wasted.append(0)
        for path in _covered(seen, listing):
            lose(path)
        for path, file in listing.files.items():
            if path in seen:
                lose(path)
            seen[path] = (file, number)
    return {path: file for path, (file, _) in seen.items()}, wasted


def _covered(seen: Iterable[str], listing: Listing) -> list[str]:
    """The paths that whiteouts of ``listing`` take away."""
    gone, opaque = set(listing.gone), set(listing.opaque)
    if not gone and not opaque:
        return []
    return [
        path
        for path in seen
        if path in gone or "" in opaque or any(up in gone or up in opaque for up in _above(path))
    ]


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
        yield member


def _note(found: Listing, member: tarfile.TarInfo, plain: _Forward) -> None:
    path = member.name.removeprefix("./").strip("/")
    if len(path) > MOST_NAME:
        raise BadLayer(f"a path has more than {MOST_NAME} characters")
    folder, _, name = path.rpartition("/")
    if name == OPAQUE:
        found.opaque.append(folder)
    elif name.startswith(WHITEOUT):
        found.gone.append(f"{folder}/{name.removeprefix(WHITEOUT)}".lstrip("/"))
    elif member.isreg():
        found.files[path] = (member.size, _content(found, path, member, plain))
    elif not member.isdir():
        mark = f"{member.type!r}{member.linkname}{member.devmajor}{member.devminor}"
        found.files[path] = (0, _mark(hashlib.sha256(mark.encode("utf-8", "surrogateescape"))))


def _content(found: Listing, path: str, member: tarfile.TarInfo, plain: _Forward) -> str:
    """Reads a file once: for its mark, and for what it tells of packages."""
    plain.seek(member.offset_data)
    wanted = (path == APK or DPKG.search(path)) and member.size <= MOST_DATABASE
    total = hashlib.sha256()
    kept = bytearray()
    left = member.size
    while left and (chunk := plain.read(min(left, 256 * 1024))):
        left -= len(chunk)
        total.update(chunk)
        if wanted:
            kept += chunk
    if wanted:
        kind = "apk" if path == APK else "dpkg"
        found.packages.setdefault(kind, {}).update(_packages(kept.decode("utf-8", "replace")))
    return _mark(total)


def _packages(text: str) -> dict[str, str]:
    """dpkg's and apk's database: paragraphs of ``Package: x`` and ``Version: 1``, or ``P:x``."""
    found = {}
    for paragraph in text.split("\n\n"):
        pairs = (line.split(":", 1) for line in paragraph.splitlines() if line[:1].strip())
        values = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
        name = values.get("Package") or values.get("P")
        if name and "not-installed" not in values.get("Status", ""):
            version = values.get("Version") or values.get("V", "")
            found[name[:MOST_WORD]] = version[:MOST_WORD]
        if len(found) >= MOST_PACKAGES:
            break
    return found


def _mark(total: hashlib._Hash) -> str:
    return total.hexdigest()[:16]


def _inflating(source: io.BufferedReader) -> BinaryIO:
    head = source.peek(4)[:4]
    if head.startswith(GZIP):
        return cast("BinaryIO", igzip.open(source))  # type: ignore[no-untyped-call]  # it has none
    if head == ZSTD:
        reader = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(
            source, read_across_frames=True
        )
        return cast("BinaryIO", reader)
    return cast("BinaryIO", source)


class _Chunks(io.RawIOBase):
    """Pieces of bytes as a file to read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # as io itself calls it
        while not self._rest:
            piece = next(self._chunks, None)
            if piece is None:
                return 0
            self._rest = piece
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


class _Forward:
    """A stream that counts, goes forward only, and refuses to be asked for much at once."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._at = 0

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_AT_ONCE:
            raise BadLayer("one of its headers is too long")
        data = b""
        while len(data) < size and (piece := self._source.read(size - len(data))):
            data += piece
        self._at += len(data)
        if self._at > MOST_UNPACKED:
            raise BadLayer("it inflates to too much")
        return data

    def seek(self, place: int) -> int:
        if place < self._at:
            raise BadLayer("it cannot be read: its entries overlap")
        while self._at < place and self.read(min(place - self._at, MOST_AT_ONCE)):
            pass
        return self._at
