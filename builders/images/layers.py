"""A layer's tree written as its tar: sorted, deterministic, with whiteouts.

The tree may be an overlay upper directory (overlayfs.rst, "whiteouts and opaque
directories"): character device 0:0 becomes ``.wh.NAME`` and an opaque directory
holds ``.wh..wh..opq`` first (image-spec layer.md, "Representing Changes").
The same tree gives the same bytes, wherever and whenever it is written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builders.errors import StoreError, UserError
from builders.images import tarformat, xattrs
from builders.images.tarformat import Member

WHITEOUT = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"

_NANO = 1_000_000_000
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1 << 20
_DEEPEST = 400  # each level holds one open directory


class Sink(Protocol):
    """Takes the tar's bytes in order. The buffer may be reused after the call returns."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLimits:
    """Caps on one layer, kept while it streams. ``ratio`` counts beyond ``ratio_from`` bytes."""

    size: int = 32 << 30
    files: int = 2_000_000
    ratio: int = 300
    ratio_from: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Written:
    """What a tar came to: bytes of tar, and entries."""

    size: int
    files: int


class LayerTooBig(UserError):
    """A cap of LayerLimits was reached."""

    code = "layer.size"


class UnlayerableFile(UserError):
    """A file that no layer can carry."""

    code = "layer.file"


def write_tree(
    tree: Path | int, sink: Sink, *, base: int, epoch: int | None, limits: LayerLimits | None = None
) -> Written:
    """Write ``tree`` (a path, or an open directory) as a layer tar.

    ``base`` is the host id of the tree's uid 0. Modification times later than ``epoch``
    (seconds) become it, in the tar and in the tree; ``None`` takes them as they are.
    Sockets, devices and attributes that layers do not carry are removed from the tree,
    so that what is kept on disk is what the tar says. The tree must be quiet.

    Raises StoreError, LayerTooBig, UnlayerableFile.
    """
    writer = _TreeWriter(sink, base, epoch, limits or LayerLimits())
    root = os.dup(tree) if isinstance(tree, int) else os.open(tree, _OPEN_DIRECTORY)
    try:
        writer.root(root)
    finally:
        os.close(root)
    return writer.finish()


@dataclass(slots=True)
class _Directory:
    """An open directory of the walk; ``mtime`` is its member's, None for the root."""

    fd: int
    path: bytes
    names: Iterator[bytes]
    mtime: int | None


def _names(fd: int) -> Iterator[bytes]:
    return iter(sorted(map(os.fsencode, os.listdir(fd))))


class _TreeWriter:
    """One walk over one tree. Collects small writes: a sink call per entry would cost more."""

    def __init__(self, sink: Sink, base: int, epoch: int | None, limits: LayerLimits) -> None:
        self._sink = sink
        self._base = base
        self._latest = None if epoch is None else epoch * _NANO
        self._limits = limits
        self._buffer = bytearray()
        self._size = 0
        self._files = 0
        self._links: dict[tuple[int, int], bytes] = {}

    def root(self, fd: int) -> None:
        """Walk with a stack of our own: Python's is too short for what a build can nest."""
        xattrs_of(fd, self._base, b"/")
        stack = [_Directory(os.dup(fd), b"", _names(fd), None)]
        try:
            while stack:
                name = next(stack[-1].names, None)
                if name is None:
                    self._leave(stack.pop())
                    continue
                below = self._entry(stack[-1].fd, name, stack[-1].path + name)
                if below is not None:
                    stack.append(below)
                    if len(stack) > _DEEPEST:
                        raise UnlayerableFile(
                            f"/{os.fsdecode(below.path[:60])}... is nested more than "
                            f"{_DEEPEST} directories deep."
                        )
        finally:
            for directory in stack:
                os.close(directory.fd)

    def finish(self) -> Written:
        self._put(tarformat.END)
        self._flush()
        return Written(self._size, self._files)

    def _entry(self, parent: int, name: bytes, path: bytes) -> _Directory | None:
        """Write one entry; a directory is returned, opened, for its entries to follow."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFCHR and status.st_rdev == 0:
            self._header(Member(path[: -len(name)] + WHITEOUT + name, mode=0))
            return None
        if name.startswith(WHITEOUT):
            raise UnlayerableFile(
                f"/{os.fsdecode(path)} cannot be kept: in a layer that name means a removed file.",
                hint="Give the file another name.",
            )
        if kind == stat.S_IFDIR:
            return self._directory(parent, name, path, status)
        if kind == stat.S_IFREG:
            self._regular(parent, name, path, status)
        elif kind == stat.S_IFLNK:
            member = self._member(path, tarformat.SYMLINK, status)
            member.link = os.readlink(name, dir_fd=parent)
            self._header(member)
            self._clamp(status, name, parent)
        elif kind == stat.S_IFIFO:
            self._header(self._member(path, tarformat.FIFO, status))
            self._clamp(status, name, parent)
        else:
            os.unlink(name, dir_fd=parent)
        return None

    def _directory(
        self, parent: int, name: bytes, path: bytes, status: os.stat_result
    ) -> _Directory:
        member = self._member(path + b"/", tarformat.DIRECTORY, status)
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        try:
            member.xattrs, opaque = xattrs_of(fd, self._base, path)
            self._header(member)
            if opaque:
                self._header(Member(path + b"/" + OPAQUE_MARKER, mode=0))
            return _Directory(fd, path + b"/", _names(fd), member.mtime)
        except BaseException:
            os.close(fd)
            raise

    def _leave(self, directory: _Directory) -> None:
        """The time comes last, because removing what cannot be kept touches the directory."""
        try:
            if directory.mtime is not None:
                self._clamp(os.fstat(directory.fd), directory.fd, to=directory.mtime)
        finally:
            os.close(directory.fd)

    def _regular(self, parent: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            first = self._links.setdefault(key, path)
            if first is not path:
                member = self._member(path, tarformat.HARD_LINK, status)
                member.link = first
                self._header(member)
                return
        member = self._member(path, tarformat.REGULAR, status)
        member.size = status.st_size
        fd = os.open(name, _OPEN_FILE, dir_fd=parent)
        try:
            member.xattrs, _ = xattrs_of(fd, self._base, path)
            self._header(member)
            self._data(fd, status.st_size, path)
            self._clamp(status, fd)
        finally:
            os.close(fd)

    def _member(self, path: bytes, type_: bytes, status: os.stat_result) -> Member:
        uid, gid = status.st_uid - self._base, status.st_gid - self._base
        if uid < 0 or gid < 0:
            raise StoreError(
                f"/{os.fsdecode(path)} belongs to host user {status.st_uid}:{status.st_gid}, "
                f"outside the sandbox's ids, which start at {self._base}."
            )
        mtime = status.st_mtime_ns // _NANO * _NANO
        if self._latest is not None and mtime > self._latest:
            mtime = self._latest
        return Member(path, type_, status.st_mode & 0o7777, uid, gid, 0, mtime)

    def _clamp(
        self,
        status: os.stat_result,
        target: int | bytes,
        parent: int | None = None,
        to: int | None = None,
    ) -> None:
        """Give the file in the tree the time its member has."""
        if self._latest is None:
            return
        mtime = min(status.st_mtime_ns // _NANO * _NANO, self._latest) if to is None else to
        if mtime == status.st_mtime_ns:
            return
        if parent is None:
            os.utime(target, ns=(mtime, mtime))
        else:
            os.utime(target, ns=(mtime, mtime), dir_fd=parent, follow_symlinks=False)

    def _header(self, member: Member) -> None:
        self._files += 1
        if self._files > self._limits.files:
            raise LayerTooBig(f"The layer has more than {self._limits.files} files.")
        self._put(tarformat.encode(member))

    def _data(self, fd: int, size: int, path: bytes) -> None:
        if self._size + size > self._limits.size:
            raise LayerTooBig(
                f"With /{os.fsdecode(path)} the layer exceeds its size limit "
                f"of {self._limits.size >> 20} MiB."
            )
        left = size
        while left:
            chunk = os.read(fd, min(left, _CHUNK))
            if not chunk:
                raise StoreError(f"/{os.fsdecode(path)} shrank while it was read.")
            left -= len(chunk)
            self._put(chunk)
        if pad := tarformat.padding(size):
            self._put(bytes(pad))

    def _put(self, data: bytes) -> None:
        self._size += len(data)
        if len(data) >= _CHUNK // 2:
            self._flush()
            self._sink.write(data)
            return
        self._buffer += data
        if len(self._buffer) >= _CHUNK // 2:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            self._sink.write(self._buffer)
            self._buffer = bytearray()


def xattrs_of(fd: int, base: int, path: bytes) -> tuple[dict[bytes, bytes], bool]:
    """The attributes to layer, and whether the directory is opaque. Raises StoreError."""
    names = os.listxattr(fd)
    if not names:
        return {}, False
    try:
        portable = xattrs.read_portable(fd, base)
    except xattrs.UnusableXattr as error:
        raise StoreError(
            f"/{os.fsdecode(path)} carries {error}: the overlay was mounted with a feature "
            "that layers cannot express.",
            hint="Mount overlays with redirect_dir=off and metacopy=off.",
        ) from error
    return portable, xattrs.OPAQUE in names and os.getxattr(fd, xattrs.OPAQUE) == b"y"
