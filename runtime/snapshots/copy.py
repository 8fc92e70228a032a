"""Layers shown with shifted owners by copying them: for kernels or file systems without idmaps.

Slow and heavy on disk, but the same result: whiteouts, opaque marks, hard links, extended
attributes and times are kept (Documentation/filesystems/overlayfs.rst "whiteouts and
opaque directories").
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.spec import IdRange

if TYPE_CHECKING:
    from runtime.snapshots import LowerDir


DEEPEST = 400  # directories, as in runtime.disk: a stranger may have nested them


@contextmanager
def view(lowers: Sequence[LowerDir], ids: IdRange, scratch: Path) -> Iterator[Sequence[Path]]:
    """See runtime.snapshots.overlay.View. The copies stay in ``scratch``, which is the caller's."""
    shown = []
    for number, lower in enumerate(lowers):
        if lower.base == ids.base:
            shown.append(lower.path)
            continue
        at = scratch / f"lower-{number}"
        copy_tree(lower.path, at, shift=ids.base - lower.base)
        shown.append(at)
    yield shown


def copy_tree(source: Path, target: Path, *, shift: int) -> None:
    """Copy a layer; every owner grows by ``shift``. Follows no link. Raises OSError."""
    linked: dict[tuple[int, int], Path] = {}
    _copy_entry(source, target, shift, linked)


def _copy_entry(
    source: Path,
    target: Path,
    shift: int,
    linked: dict[tuple[int, int], Path],
    depth: int = 0,
) -> None:
    if depth > DEEPEST:
        raise OSError(errno.ENAMETOOLONG, f"nested more than {DEEPEST} directories deep")
    found = source.lstat()
    first = linked.get((found.st_dev, found.st_ino))
    if first is not None:
        os.link(first, target, follow_symlinks=False)
        return
    if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
        linked[(found.st_dev, found.st_ino)] = target
    _make_entry(source, target, found)
    if stat.S_ISDIR(found.st_mode):
        for entry in os.scandir(source):
            _copy_entry(Path(entry.path), target / entry.name, shift, linked, depth + 1)
    _copy_attributes(source, target, found, shift)


def _make_entry(source: Path, target: Path, found: os.stat_result) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        target.mkdir(mode=0o700)
    elif kind == stat.S_IFLNK:
        target.symlink_to(source.readlink())
    elif kind == stat.S_IFREG:
        shutil.copyfile(source, target)
    else:
        os.mknod(target, found.st_mode, found.st_rdev)


def _copy_attributes(source: Path, target: Path, found: os.stat_result, shift: int) -> None:
    os.chown(target, found.st_uid + shift, found.st_gid + shift, follow_symlinks=False)
    for name in os.listxattr(source, follow_symlinks=False):
        value = os.getxattr(source, name, follow_symlinks=False)
        with suppress(OSError):  # an attribute this file system does not keep
            os.setxattr(target, name, value, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        target.chmod(stat.S_IMODE(found.st_mode))
    times = (found.st_atime_ns, found.st_mtime_ns)
    os.utime(target, ns=times, follow_symlinks=False)
