"""Layers with shifted owners by idmapped mounts (mount_setattr(2); Linux >= 5.19 for overlay).

open_tree clones a mount of the layer, mount_setattr gives it the mapping, move_mount
attaches it. The overlay clones it once more, so it is detached again right after.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import host, owner, process, syscalls
from runtime.snapshots.overlay import MARK
from runtime.spec import IdRange

if TYPE_CHECKING:
    from runtime.snapshots import LowerDir

MAPPINGS_KEPT = 64


class UserNamespaces:
    """User namespaces that serve as mappings, kept by fd: making one costs a process."""

    def __init__(self, kept: int = MAPPINGS_KEPT) -> None:
        self._fds: OrderedDict[tuple[int, int, int], int] = OrderedDict()
        self._kept = kept
        self._lock = threading.Lock()

    def open(self, inside: int, outside: int, size: int) -> int:
        """An fd, the caller's to close, of a namespace that maps ``inside`` to ``outside``."""
        with self._lock:
            key = (inside, outside, size)
            if key not in self._fds:
                self._fds[key] = _make_user_namespace(*key)
                if len(self._fds) > self._kept:
                    os.close(self._fds.popitem(last=False)[1])
            self._fds.move_to_end(key)
            return os.dup(self._fds[key])


def _make_user_namespace(inside: int, outside: int, size: int) -> int:
    with process.Holder(("unshare", "--user")) as pid:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(f"{inside} {outside} {size}\n")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


_namespaces = UserNamespaces()
_supported: dict[int, bool] = {}  # by device number


@contextmanager
def view(lowers: Sequence[LowerDir], ids: IdRange, scratch: Path) -> Iterator[Sequence[Path]]:
    """See runtime.snapshots.overlay.View. A layer of the range's own needs no mount at all.

    All are attached below one mount, because each detaching waits for every processor
    (synchronize_rcu), however many mounts it takes along.
    """
    if all(lower.base == ids.base for lower in lowers):
        yield [lower.path for lower in lowers]
        return
    with _stage(scratch) as stage:
        shown = []
        for number, lower in enumerate(lowers):
            at = stage / str(number)
            if lower.base == ids.base:
                shown.append(lower.path)
                continue
            at.mkdir(mode=0o700)
            _attach(lower, ids, at)
            shown.append(at)
        yield shown


@contextmanager
def _stage(scratch: Path) -> Iterator[Path]:
    """A directory that is a mount of its own; with it go all that were attached below it."""
    # The name says whose it is, should we be killed while it is mounted.
    stage = scratch / "view" / f"{MARK}{owner.token()}"
    stage.mkdir(mode=0o700, parents=True)
    syscalls.mount(str(stage), stage, "", syscalls.MS_BIND)
    try:
        syscalls.mount("", stage, "", syscalls.MS_PRIVATE)
        yield stage
    finally:
        syscalls.umount2(stage)
        for directory in (*stage.iterdir(), stage, stage.parent):
            directory.rmdir()


def _attach(lower: LowerDir, ids: IdRange, at: Path) -> None:
    tree = _idmapped_tree(lower.path, lower.base, ids)
    try:
        syscalls.move_mount(tree, syscalls.AT_FDCWD, at)
    finally:
        os.close(tree)


def _idmapped_tree(path: Path, base: int, ids: IdRange) -> int:
    """A detached, idmapped mount of ``path``; the caller closes the fd."""
    flags = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC
    tree = syscalls.open_tree(syscalls.AT_FDCWD, path, flags)
    try:
        userns = _namespaces.open(base, ids.base, ids.size)
        try:
            syscalls.mount_setattr(
                tree,
                attr_set=syscalls.MOUNT_ATTR_IDMAP | syscalls.MOUNT_ATTR_RDONLY,
                userns_fd=userns,
                propagation=syscalls.MS_PRIVATE,
            )
        finally:
            os.close(userns)
    except BaseException:
        os.close(tree)
        raise
    return tree


def supported(path: Path) -> bool:
    """Whether the kernel, and the file system that ``path`` is on, can be idmapped.

    Tried once per file system: making and dropping a mount costs milliseconds.
    """
    device = path.stat().st_dev
    if device not in _supported:
        _supported[device] = _try(path)
    return _supported[device]


def _try(path: Path) -> bool:
    if host.kernel_version() < host.KERNEL_IDMAPPED_OVERLAY:
        return False
    with suppress(OSError):
        os.close(_idmapped_tree(path, 0, IdRange(65536, 1)))
        return True
    return False
