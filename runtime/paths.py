"""Paths that an image, a repository or a build step can name, followed inside a root only.

Everything works on a directory fd of that root with openat2(2): ``..`` and absolute
symbolic links mean the root's own, magic links (/proc/self/fd/N) are never followed, and
nothing is looked up twice by name. These are the defences against links that lead outside.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime import syscalls
from runtime.errors import SpecError

IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
SYMLINKS_MAXIMUM = 40  # as in the kernel (path_resolution(7))


@contextmanager
def open_root(path: Path) -> Iterator[int]:
    """An O_PATH directory fd of ``path``, which the caller vouches for; closed at the end."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def open_in_root(root_fd: int, path: str, flags: int = os.O_PATH, *, mode: int = 0) -> int:
    """openat2 of ``path`` as if ``root_fd`` were ``/``; the caller closes the fd.

    Symbolic links are followed inside the root, the last one too unless ``flags`` has
    O_NOFOLLOW. Raises OSError as open(2) does; ELOOP on a magic link.
    """
    return syscalls.openat2(root_fd, path or "/", flags, mode=mode, resolve=IN_ROOT)


def open_beneath(root_fd: int, path: str, flags: int = os.O_PATH, *, mode: int = 0) -> int:
    """As open_in_root, but ``path`` may hold no symbolic link at all and not leave the root.

    Raises OSError: ELOOP at a symbolic link, EXDEV where the path would leave.
    """
    return syscalls.openat2(root_fd, path.lstrip("/") or ".", flags, mode=mode, resolve=BENEATH)


def exists_in_root(root_fd: int, path: str, *, follow: bool = True) -> os.stat_result | None:
    """The stat of ``path`` in the root, or None where there is nothing."""
    try:
        fd = open_in_root(root_fd, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def resolve_in_root(root_fd: int, path: str) -> str:
    """``path`` with every symbolic link followed inside the root, as an absolute path of it.

    Parts that do not exist are kept as they are, as ``realpath -m`` does. What is returned
    is for messages, cache keys and config values: open it again with open_in_root only.
    Raises SpecError when links turn in a circle.
    """
    done: list[str] = []
    todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        target = _readlink(root_fd, "/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > SYMLINKS_MAXIMUM:
            raise SpecError(
                f"Too many symbolic links in {path}.",
                hint="Look for links that lead round in circles.",
            )
        if target.startswith("/"):
            done.clear()
        todo.extend([p for p in target.split("/") if p not in ("", ".")][::-1])
    return "/" + "/".join(done)


def _readlink(root_fd: int, path: str) -> str | None:
    """The link's text, or None for what is no link or not there. ``path`` has no link before."""
    try:
        fd = open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    try:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            return None
        return os.readlink("", dir_fd=fd)
    finally:
        os.close(fd)


def mkdir_in_root(
    root_fd: int,
    path: str,
    *,
    mode: int = 0o755,
    owner: tuple[int, int] | None = None,
    inherit: bool = False,
) -> list[str]:
    """Make directory ``path`` and its missing parents inside the root; as ``mkdir -p``.

    ``owner`` (host uid, gid) and ``mode`` (whatever the umask) go to the ones that are new;
    those are returned, outermost first, as absolute paths of the root. Below a directory with
    the set-group-ID bit they have that, too, and with ``inherit`` its group. Symbolic links on
    the way are followed inside the root, also dangling ones: what they name is made.
    Raises NotADirectoryError when a part is something else, SpecError on a circle of links.
    """
    made: list[str] = []
    real = resolve_in_root(root_fd, path)
    parent = open_in_root(root_fd, "/", os.O_PATH | os.O_DIRECTORY)
    try:
        walked = ""
        for part in real.split("/"):
            if not part:
                continue
            walked += "/" + part
            child, new = _step_into(parent, part, walked)
            os.close(parent)
            parent = child
            if new:
                made.append(walked)
                _take_owner(parent, mode, owner, inherit=inherit)
    finally:
        os.close(parent)
    return made


def _step_into(parent: int, part: str, shown: str) -> tuple[int, bool]:
    """(fd of directory ``part`` of ``parent``, whether it had to be made). Follows no link."""
    new = False
    try:
        os.mkdir(part, 0o700, dir_fd=parent)
        new = True
    except FileExistsError:
        pass
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        return syscalls.openat2(parent, part, flags, resolve=syscalls.RESOLVE_BENEATH), new
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", shown) from error
        raise


def _take_owner(fd: int, mode: int, owner: tuple[int, int] | None, *, inherit: bool) -> None:
    inherited = os.fstat(fd).st_mode & stat.S_ISGID  # the kernel's doing
    if owner is not None:
        uid, gid = owner
        os.fchown(fd, uid, -1 if inherited and inherit else gid)
    os.fchmod(fd, mode | inherited)


def open_parent_in_root(root_fd: int, path: str) -> tuple[int, str]:
    """(fd of the directory that holds ``path``, its last name): for creating or removing it.

    The last name is not followed. Raises OSError when the parent is missing, SpecError for
    the root itself.
    """
    parent, name = posixpath.split(posixpath.normpath("/" + path.lstrip("/")))
    if name in ("", ".."):
        raise SpecError(f"{path!r} names the root itself.", hint="Name something in it.")
    return open_in_root(root_fd, parent, os.O_RDONLY | os.O_DIRECTORY), name


def read_in_root(root_fd: int, path: str, maximum: int) -> bytes:
    """The content of the regular file ``path``, of at most ``maximum`` bytes.

    Raises OSError as open(2), SpecError when it is no regular file or is bigger. A fifo or
    a device is refused without being opened for reading, so nothing can block here.
    """
    handle = open_in_root(root_fd, path, os.O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise SpecError(f"{path} is no regular file.", hint="Name a file.")
        # Opened again by its fd: the name may mean something else by now.
        with open(f"/proc/self/fd/{handle}", "rb") as file:  # noqa: PTH123
            content = file.read(maximum + 1)
    finally:
        os.close(handle)
    if len(content) > maximum:
        raise SpecError(f"{path} is bigger than {maximum} bytes.", hint="Make it smaller.")
    return content


def readable_by_mapped(path: Path) -> Path | None:
    """The first parent of ``path`` (or itself) that others cannot search, None when all can.

    The sandbox's root is another user on the host: runc walks to the root file system as
    that user, so each directory on the way needs mode o+x.
    """
    for parent in [*reversed(path.parents), path]:
        if not parent.stat().st_mode & stat.S_IXOTH:
            return parent
    return None
