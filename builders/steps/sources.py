"""What COPY and ADD read from: a context, or the file system of another stage or image.

Both sides answer alike: ``find`` says what a pattern names, ``items`` walks it.
"""

from __future__ import annotations

import difflib
import os
import posixpath
import stat
from collections.abc import Container, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from e2b_dockerfile_utils import PatternMatcher

from builders.context import Entry, Kind
from builders.context.tree import ContextTree, has_wildcard, name_matcher
from builders.errors import ContextError
from runtime.paths import exists_in_root, open_in_root, resolve_in_root

_CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Found:
    """``path`` as matched (its last name is the copy's), ``real`` with symlinks followed."""

    path: str
    real: str
    folder: bool
    pivot: int = 0  # how many of the path's names stand before the ``/./`` of --parents

    @property
    def name(self) -> str:
        return posixpath.basename(self.path.rstrip("/"))


@dataclass(slots=True)
class Item:
    """One thing to make. ``path`` is relative to the copied folder, empty for a single file.

    ``uid``/``gid`` are the image's; ``mtime`` nanoseconds, None for the layer's own time.
    ``twin`` is equal for hard links of one file. ``chunks`` must be used before the next item.
    ``implied`` is a folder that an archive does not describe, only what is in it: one that is
    there already stays as it is.
    """

    path: str
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int | None = None
    link: str = ""
    chunks: Iterable[bytes] = ()
    twin: tuple[int, int] | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)
    implied: bool = False


class Source(Protocol):
    """``find`` returns [] for a missing path; ``nearest`` then helps the message.

    Whoever does not use up ``items`` closes it: until then others may have to wait.
    """

    def find(self, pattern: str) -> Sequence[Found]: ...

    def items(self, found: Found, exclude: PatternMatcher | None) -> Generator[Item]: ...

    def folder(self, path: str) -> Item:
        """The folder at a matched path, or one above it, as an item without content."""
        ...

    def nearest(self, pattern: str) -> Sequence[str]: ...


def nearest_names(source: Source, path: str) -> str:
    """The next step for a missing ``path``; empty where nothing is like it."""
    near = source.nearest(path)
    return f"The nearest names are {', '.join(near)}." if near else ""


class ContextSource:
    """Files of the build context: owned by root, with the layer's time."""

    def __init__(self, tree: ContextTree) -> None:
        self._tree = tree

    def find(self, pattern: str, *, literal: bool = False) -> list[Found]:
        wild = has_wildcard(pattern) and not literal
        paths = self._tree.match(pattern) if wild else [_clean(pattern)]
        found = []
        for path in paths:
            entry = self._tree.resolve(path)
            if entry is not None:
                folder = entry.kind is Kind.FOLDER
                found.append(Found(path, entry.path, folder, _pivot(pattern)))
        return found

    def folder(self, path: str) -> Item:
        entry = self._tree.resolve(path)
        return Item("", Kind.FOLDER, 0o755 if entry is None else entry.mode)

    def digest(self, found: Found, exclude: PatternMatcher | None) -> str:
        entry = self._entry(found)
        return self._tree.digest(entry, exclude.matches if exclude else None)

    def items(self, found: Found, exclude: PatternMatcher | None) -> Generator[Item]:
        entry = self._entry(found)
        if not found.folder:
            pairs = [("", entry)]
        else:
            pairs = [
                (path, child)
                for path, child in self._tree.under(entry)
                if exclude is None or not exclude.matches(path)
            ]
        bodies = self._tree.context.read(
            child for _, child in pairs if child.kind is not Kind.FOLDER
        )
        for path, child in pairs:
            if child.kind is Kind.FOLDER:
                yield Item(path, child.kind, child.mode)
                continue
            _, chunks = next(bodies)
            if child.kind is Kind.SYMLINK:
                text = b"".join(chunks)
                yield Item(path, child.kind, child.mode, link=os.fsdecode(text))
            else:
                yield Item(path, child.kind, child.mode, chunks=chunks, twin=child.twin)
        next(bodies, None)  # lets the reader finish its last body

    def nearest(self, pattern: str) -> list[str]:
        return self._tree.nearest(pattern)

    def broken_link(self, pattern: str) -> str:
        """A sentence on the symbolic link in ``pattern`` that leads nowhere, else empty."""
        link = self._tree.last_link(_clean(pattern))
        if link is None:
            return ""
        path, target = link
        real = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if real.startswith("/") or real.split("/")[0] == "..":
            return (
                f"{path} is a symbolic link to {target}, outside the build context: "
                "put the file itself there."
            )
        return f"{path} is a symbolic link to {target}, which the build context does not have."

    def _entry(self, found: Found) -> Entry:
        entry = self._tree.get(found.real)
        if entry is None:
            raise ContextError(f"{found.path} has vanished.", code="context.changed")
        return entry


class RootSource:
    """Files of a mounted root: owners, times and attributes are kept. ``base`` is its uid 0."""

    def __init__(self, root_fd: int, *, base: int, implied: Container[str] = frozenset()) -> None:
        self.fd = root_fd
        self._root = root_fd
        self._base = base
        self._implied = implied

    def find(self, pattern: str, *, literal: bool = False) -> list[Found]:
        wild = has_wildcard(pattern) and not literal
        paths = self._match(pattern) if wild else [_clean(pattern)]
        found = []
        for path in paths:
            status = exists_in_root(self._root, "/" + path)
            if status is not None:
                real = resolve_in_root(self._root, "/" + path)
                found.append(Found(path, real, stat.S_ISDIR(status.st_mode), _pivot(pattern)))
        return found

    def folder(self, path: str) -> Item:
        fd = open_in_root(self._root, "/" + path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            status = os.fstat(fd)
            return Item(
                "",
                Kind.FOLDER,
                stat.S_IMODE(status.st_mode),
                uid=status.st_uid - self._base,
                gid=status.st_gid - self._base,
                mtime=status.st_mtime_ns,
                xattrs=_xattrs(fd),
            )
        finally:
            os.close(fd)

    def items(self, found: Found, exclude: PatternMatcher | None) -> Generator[Item]:
        if found.folder:
            fd = open_in_root(self._root, found.real, os.O_RDONLY | os.O_DIRECTORY)
            try:
                yield from self._walk(fd, "", exclude)
            finally:
                os.close(fd)
            return
        folder, name = posixpath.split(found.real)
        parent = open_in_root(self._root, folder or "/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield from self._item(parent, name, "", None)
        finally:
            os.close(parent)

    def nearest(self, pattern: str) -> list[str]:
        folder, name = posixpath.split("/" + _clean(pattern))
        names: list[str] = []
        with suppress(OSError):
            names = self._names(folder)
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        return [posixpath.join(folder, other) for other in close]

    def _match(self, pattern: str) -> list[str]:
        paths = [""]
        for part in _clean(pattern).split("/"):
            matches = name_matcher(part)
            following: list[str] = []
            for base in paths:
                if not has_wildcard(part):
                    following.append(posixpath.join(base, part))
                    continue
                with suppress(OSError):
                    names = [name for name in self._names("/" + base) if matches.match(name)]
                    following += [posixpath.join(base, name) for name in names]
            paths = following
        return sorted(paths)

    def _names(self, folder: str) -> list[str]:
        fd = open_in_root(self._root, folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as listing:
                return [item.name for item in listing]
        finally:
            os.close(fd)

    def _walk(self, fd: int, prefix: str, exclude: PatternMatcher | None) -> Iterator[Item]:
        for name in sorted(os.listdir(fd)):
            yield from self._item(fd, name, prefix + name, exclude)

    def _item(
        self, parent: int, name: str, path: str, exclude: PatternMatcher | None
    ) -> Iterator[Item]:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        hidden = exclude is not None and path != "" and exclude.matches(path)
        mode = stat.S_IMODE(status.st_mode)
        item = Item(
            path,
            Kind.FILE,
            mode,
            uid=status.st_uid - self._base,
            gid=status.st_gid - self._base,
            mtime=status.st_mtime_ns,
        )
        if stat.S_ISDIR(status.st_mode):
            fd = os.open(name, _FOLDER, dir_fd=parent)
            try:
                if not hidden:
                    item.kind, item.xattrs = Kind.FOLDER, _xattrs(fd)
                    item.implied = path in self._implied
                    yield item
                yield from self._walk(fd, path + "/", exclude)
            finally:
                os.close(fd)
        elif hidden:
            return
        elif stat.S_ISLNK(status.st_mode):
            item.kind, item.link = Kind.SYMLINK, os.readlink(name, dir_fd=parent)
            yield item
        elif stat.S_ISFIFO(status.st_mode):
            item.kind = Kind.FIFO
            yield item
        elif stat.S_ISREG(status.st_mode):
            fd = os.open(name, _FILE, dir_fd=parent)
            with os.fdopen(fd, "rb", buffering=0) as stream:
                item.xattrs = _xattrs(fd)
                item.chunks = iter(lambda: stream.read(_CHUNK), b"")
                item.twin = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
                yield item


def _xattrs(fd: int) -> dict[str, bytes]:
    names = [n for n in os.listxattr(fd) if n == "security.capability" or n.startswith("user.")]
    return {name: os.getxattr(fd, name) for name in names}


def _pivot(pattern: str) -> int:
    before, pivot, _ = ("/" + pattern).rpartition("/./")
    return len([part for part in before.split("/") if part not in {"", "."}]) if pivot else 0


def _clean(pattern: str) -> str:
    return posixpath.normpath("/" + pattern).strip("/")
