"""Removing directory trees that strangers shaped: any depth, two open fds, nothing followed.

Not even a mount is entered: a forgotten one could be a layer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid

from runtime import syscalls

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(parent: int, name: bytes) -> None:
    """Remove the directory ``name`` in ``parent`` and all it holds.

    Directories inside are moved up to the top one before they are emptied, so that
    neither the stack nor the table of open files grows with the depth.
    """
    top = _open_here(parent, name)
    try:
        _empty(top)
        while not _is_removed(name, parent):  # somebody was just adding to it
            _empty(top)
    finally:
        os.close(top)


def _empty(top: int) -> None:
    while children := os.listdir(top):
        for child in children:
            _remove_child(top, child)


def _is_removed(name: bytes, parent: int) -> bool:
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def remove_path(path: str | os.PathLike[str]) -> None:
    """Remove a tree by its path, which the caller owns; an absent one is fine."""
    folder, name = os.path.split(os.fsencode(path))
    with contextlib.suppress(FileNotFoundError):
        parent = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(parent, name)
        finally:
            os.close(parent)


def _remove_child(top: int, child: str) -> None:
    if _unlinked(top, child):
        return
    fd = _open_here(top, child)
    try:
        for name in os.listdir(fd):  # noqa: PTH208 - by fd
            if not _unlinked(fd, name):
                os.rename(name, f".{uuid.uuid4().hex}", src_dir_fd=fd, dst_dir_fd=top)
    finally:
        os.close(fd)
    os.rmdir(child, dir_fd=top)


def _open_here(parent: int, name: bytes | str) -> int:
    resolve = syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_BENEATH
    return syscalls.openat2(parent, name, _DIRECTORY, resolve=resolve)


def _unlinked(parent: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=parent)
    except (IsADirectoryError, PermissionError):
        return False
    return True
