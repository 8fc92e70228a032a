"""Mount points that the OCI runtime makes in the root file system, and that must not stay.

Where a mount's target is missing, runc and crun make it, and what they make would end in
the image's layer. What was missing before is removed afterwards, when every process is
dead: by names below a directory fd taken beforehand, through no symbolic link, and only
if it is still empty (CVE-2024-23652).
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from runtime import paths


@contextmanager
def removed(rootfs: Path, targets: Sequence[str]) -> Iterator[None]:
    """While the block runs, the missing ones of ``targets`` may be made; none is there after it."""
    with ExitStack() as stack:
        root = stack.enter_context(paths.open_root(rootfs))
        for target in targets:
            stack.enter_context(_one_removed(root, target))
        yield


@contextmanager
def _one_removed(root: int, target: str) -> Iterator[None]:
    parent_path, missing = split_missing(root, target)
    if not missing:
        yield
        return
    parent = paths.open_in_root(root, parent_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        before = os.fstat(parent)
        yield
        for depth in range(len(missing), 0, -1):
            _remove_if_empty(parent, missing[:depth])
        # Or the directory's new time alone would be a difference between layers.
        os.utime(f"/proc/self/fd/{parent}", ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(parent)


def split_missing(root: int, target: str) -> tuple[str, list[str]]:
    """(the deepest directory of ``target`` that is there, the names below it that are not)."""
    there = paths.resolve_in_root(root, target)
    missing: list[str] = []
    while there != "/" and paths.exists_in_root(root, there, follow=False) is None:
        there, name = posixpath.split(there)
        missing.insert(0, name)
    return there, missing


def _remove_if_empty(parent: int, names: list[str]) -> None:
    with suppress(OSError):
        above = paths.open_beneath(parent, "/".join(names[:-1]), os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = os.stat(names[-1], dir_fd=above, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.rmdir(names[-1], dir_fd=above)
            elif stat.S_ISREG(found.st_mode) and found.st_size == 0:
                os.unlink(names[-1], dir_fd=above)
        finally:
            os.close(above)
