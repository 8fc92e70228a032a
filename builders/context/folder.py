"""A folder as a build context, walked by directory fds: no symlink is ever followed out of it."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from builders.context import Entry, Kind
from builders.errors import ContextError

_CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK so that a file swapped for a FIFO after it was listed cannot hang the build.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_Stamp = tuple[int, int, int, int, int]


class FolderContext:
    """What lies under ``path`` now. Sockets, pipes and devices are left out.

    Content is hashed when a step first asks, and again while it is copied: a
    file that changed between the two fails the build instead of poisoning a
    cache key.
    """

    identity = ""

    def __init__(self, path: Path) -> None:
        try:
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ContextError(
                f"Cannot open the build context {path}: {error.strerror}.", code="context.folder"
            ) from None
        self._digests: dict[str, str] = {}
        self._lock = threading.Lock()
        self.notices: list[str] = []

    def entries(self) -> Iterator[Entry]:
        yield from self._walk(self._root, "")

    def digest(self, entry: Entry) -> str:
        with self._lock:
            known = self._digests.get(entry.path)
        if known is None:
            total = hashlib.sha256()
            for chunk in self._bytes(entry):
                total.update(chunk)
            known = total.hexdigest()
            with self._lock:
                self._digests[entry.path] = known
        return known

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        for entry in entries:
            yield entry, self._verified(entry)

    def close(self) -> None:
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _walk(self, fd: int, prefix: str) -> Iterator[Entry]:
        with os.scandir(fd) as listing:
            found = sorted(listing, key=lambda item: item.name)
        for item in found:
            path = prefix + item.name
            try:
                status = item.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone since it was listed, as editors' drafts are
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISDIR(status.st_mode):
                yield Entry(path, Kind.FOLDER, mode)
                yield from self._inside(fd, item.name, path)
            elif stat.S_ISREG(status.st_mode):
                twin = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
                yield Entry(path, Kind.FILE, mode, twin=twin)
            elif stat.S_ISLNK(status.st_mode):
                yield Entry(path, Kind.SYMLINK, 0o777)
            else:
                self.notices.append(f"{path} is neither a file, a folder nor a symbolic link.")

    def _inside(self, fd: int, name: str, path: str) -> Iterator[Entry]:
        try:
            inner = os.open(name, _FOLDER, dir_fd=fd)
        except OSError as error:
            raise _unreadable(path, error) from None
        try:
            yield from self._walk(inner, path + "/")
        finally:
            os.close(inner)

    def _verified(self, entry: Entry) -> Iterator[bytes]:
        with self._lock:
            known = self._digests.get(entry.path)
        total = hashlib.sha256()
        for chunk in self._bytes(entry):
            total.update(chunk)
            yield chunk
        if known is not None and total.hexdigest() != known:
            raise ContextError(
                f"{entry.path} changed while it was being copied.",
                hint="Build again when nothing writes to the context.",
                code="context.changed",
            )

    def _bytes(self, entry: Entry) -> Iterator[bytes]:
        folder, _, name = entry.path.rpartition("/")
        try:
            parent = self._open_folder(folder)
            try:
                if entry.kind is Kind.SYMLINK:
                    yield os.fsencode(os.readlink(name, dir_fd=parent))
                    return
                fd = os.open(name, _FILE, dir_fd=parent)
            finally:
                os.close(parent)
        except OSError as error:
            raise _unreadable(entry.path, error) from None
        with os.fdopen(fd, "rb", buffering=0) as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ContextError(f"{entry.path} is no longer a file.", code="context.changed")
            while chunk := stream.read(_CHUNK):
                yield chunk

    def _open_folder(self, path: str) -> int:
        fd = os.dup(self._root)
        for part in path.split("/") if path else ():
            try:
                inner = os.open(part, _FOLDER, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
        return fd


def _unreadable(path: str, error: OSError) -> ContextError:
    return ContextError(
        f"Cannot read {path} of the build context: {error.strerror}.", code="context.unreadable"
    )
