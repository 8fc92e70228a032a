"""Writes files into a mounted root by directory fds; no host path is ever formed from a name.

Rules of what may replace what are BuildKit's (tonistiigi/fsutil copy): a file
replaces a file or symlink but never a folder, a folder never replaces a file. What an archive
holds replaces whatever it finds in its place (moby's archive.Unpack).
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from builders.context import Kind
from builders.errors import ContextError
from builders.steps.modes import ModeChange
from builders.steps.sources import Item
from runtime.paths import exists_in_root, mkdir_in_root, open_in_root, open_parent_in_root
from runtime.spec import IdRange

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 200  # folders below one another
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Placer:
    """``owner`` and ``change`` come from --chown and --chmod; ``time`` is in seconds."""

    root_fd: int
    ids: IdRange
    time: int
    owner: tuple[int, int] | None = None
    change: ModeChange | None = None
    # Of an archive: items keep their own owner and mode, which what is made on the way to them
    # does not have, and take the place of whatever is there.
    as_is: bool = False
    check: Callable[[], None] = lambda: None  # called again and again, and may raise

    def is_folder(self, path: str) -> bool:
        status = exists_in_root(self.root_fd, path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def make_folders(self, path: str) -> None:
        """``mkdir -p`` inside the root; what is new belongs to --chown's owner."""
        try:
            owner = self._host(*(self.owner or (0, 0)))
            made = mkdir_in_root(self.root_fd, path, owner=owner, inherit=self.owner is None)
        except NotADirectoryError as error:
            raise ContextError(
                f"Cannot make the folder {error.filename or path}: the image has a file there.",
                hint="Choose another destination, or remove the file first.",
                code="context.replace-file",
            ) from None
        for new in made:
            fd = open_in_root(self.root_fd, new, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.utime(fd, ns=self._times(None))
            finally:
                os.close(fd)

    def place_parent(self, path: str, item: Item) -> None:
        """One folder like ``item``, empty, in a folder that is there."""
        parent, name = open_parent_in_root(self.root_fd, path)
        try:
            fd = self._folder(parent, name, path, item)
            try:
                self._finish(fd, item, folder=True)
            finally:
                os.close(fd)
        finally:
            os.close(parent)

    def become(self, path: str, item: Item) -> None:
        """Give the folder that is at ``path`` the owner, mode and attributes of ``item``."""
        fd = open_in_root(self.root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._finish(fd, item, folder=True)
        finally:
            os.close(fd)

    def place_file(self, path: str, items: Iterable[Item]) -> None:
        """The one item at exactly ``path``; its folder must exist."""
        parent, name = open_parent_in_root(self.root_fd, path)
        try:
            for item in items:
                self._put(parent, name, path, item, {})
        finally:
            os.close(parent)

    def place_folder(self, path: str, items: Iterable[Item]) -> None:
        """All items below the existing folder ``path``; parents come before children."""
        root = open_in_root(self.root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
        twins: dict[tuple[int, int], str] = {}
        stack: list[tuple[str, int, Item | None]] = [("", root, None)]
        try:
            for item in items:
                folder, _, name = item.path.rpartition("/")
                while stack[-1][0] != folder and not folder.startswith(
                    stack[-1][0] + "/" * bool(stack[-1][0])
                ):
                    self._leave(stack)
                self._enter_missing(stack, folder, path)
                parent = stack[-1][1]
                if item.kind is Kind.FOLDER:
                    stack.append(self._enter(parent, name, path, item))
                else:
                    self._put(parent, name, posixpath.join(path, item.path), item, twins, root)
        finally:
            while stack:
                self._leave(stack)

    def _enter(
        self, parent: int, name: str, shown: str, item: Item
    ) -> tuple[str, int, Item | None]:
        """A folder's path, descriptor, and what it becomes when it is left."""
        if item.implied:
            with suppress(FileNotFoundError, NotADirectoryError):
                # Also through a symbolic link, as /lib is one of many images.
                there = posixpath.join(shown, item.path)
                return (
                    item.path,
                    open_in_root(self.root_fd, there, os.O_RDONLY | os.O_DIRECTORY),
                    None,
                )
        return item.path, self._folder(parent, name, shown, item), item

    def _enter_missing(
        self, stack: list[tuple[str, int, Item | None]], folder: str, shown: str
    ) -> None:
        """Folders that an --exclude took away but that something below them needs."""
        while stack[-1][0] != folder:
            done = stack[-1][0]
            rest = folder[len(done) + 1 :] if done else folder
            name = rest.split("/")[0]
            path = f"{done}/{name}" if done else name
            item = Item(path, Kind.FOLDER, 0o755)
            stack.append((path, self._folder(stack[-1][1], name, shown, item), item))

    def _leave(self, stack: list[tuple[str, int, Item | None]]) -> None:
        _, fd, item = stack.pop()
        try:
            if item is not None:
                # Last, because what was put inside has touched the folder.
                self._finish(fd, item, folder=True)
        finally:
            os.close(fd)

    def _folder(self, parent: int, name: str, shown: str, item: Item) -> int:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        try:
            return os.open(name, _FOLDER, dir_fd=parent)
        except OSError:
            if not self.as_is or item.implied:
                raise _not_a_folder(posixpath.join(shown, item.path)) from None
        os.unlink(name, dir_fd=parent)
        os.mkdir(name, 0o700, dir_fd=parent)
        return os.open(name, _FOLDER, dir_fd=parent)

    def _put(
        self,
        parent: int,
        name: str,
        shown: str,
        item: Item,
        twins: dict[tuple[int, int], str],
        root: int = -1,
    ) -> None:
        _make_room(parent, name, shown, whole_folders=self.as_is)
        if item.kind is Kind.SYMLINK:
            os.symlink(item.link, name, dir_fd=parent)
            os.chown(name, *self._owner(item), dir_fd=parent, follow_symlinks=False)
            os.utime(name, ns=self._times(item), dir_fd=parent, follow_symlinks=False)
            return
        if item.kind is Kind.FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent)
            os.chown(name, *self._owner(item), dir_fd=parent, follow_symlinks=False)
            os.chmod(name, self._mode(item, folder=False), dir_fd=parent)
            os.utime(name, ns=self._times(item), dir_fd=parent, follow_symlinks=False)
            return
        if item.twin is not None and item.twin in twins:
            os.link(twins[item.twin], name, src_dir_fd=root, dst_dir_fd=parent)
            return
        fd = os.open(name, _NEW, 0o600, dir_fd=parent)
        try:
            for chunk in item.chunks:
                self.check()
                _write(fd, chunk)
            self._finish(fd, item, folder=False)
        finally:
            os.close(fd)
        if item.twin is not None and root >= 0:
            twins[item.twin] = item.path

    def _finish(self, fd: int, item: Item, *, folder: bool) -> None:
        os.fchown(fd, *self._owner(item))
        os.fchmod(fd, self._mode(item, folder=folder))
        for key, value in item.xattrs.items():
            os.setxattr(fd, key, value)
        os.utime(fd, ns=self._times(item))

    def _mode(self, item: Item, *, folder: bool) -> int:
        change = None if self.as_is else self.change
        return change.apply(item.mode, folder=folder) if change else item.mode

    def _owner(self, item: Item) -> tuple[int, int]:
        owner = None if self.as_is else self.owner
        return self._host(*(owner or (item.uid, item.gid)))

    def _host(self, uid: int, gid: int) -> tuple[int, int]:
        for number in (uid, gid):
            if not 0 <= number < self.ids.size:
                raise ContextError(
                    f"The owner {uid}:{gid} is beyond the {self.ids.size} ids of a build.",
                    hint=f"Use numbers from 0 to {self.ids.size - 1}.",
                    code="context.owner",
                )
        return self.ids.base + uid, self.ids.base + gid

    def _times(self, item: Item | None) -> tuple[int, int]:
        late = self.time * 1_000_000_000
        mtime = late if item is None or item.mtime is None else item.mtime
        return mtime, mtime


def _make_room(parent: int, name: str, shown: str, *, whole_folders: bool) -> None:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
    elif not (whole_folders and _removed(parent, name)):
        raise ContextError(
            f"Cannot replace the folder {shown} by a file.", code="context.replace-folder"
        )


def _removed(parent: int, name: str, depth: int = 0) -> bool:
    """Remove a folder with all it holds; False when it is nested deeper than is gone into.

    An overlay moves no folder of a layer, so that ``remove_tree`` cannot flatten it.
    """
    if depth > _DEEPEST:
        return False
    fd = os.open(name, _FOLDER, dir_fd=parent)
    try:
        for child in os.listdir(fd):  # noqa: PTH208 - by fd
            try:
                os.unlink(child, dir_fd=fd)
            except IsADirectoryError:
                if not _removed(fd, child, depth + 1):
                    return False
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)
    return True


def _not_a_folder(path: str) -> ContextError:
    return ContextError(
        f"Cannot copy a folder to {path}: there is something else in the image.",
        hint="Where it is a symbolic link, copy to what it points to.",
        code="context.replace-file",
    )


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
