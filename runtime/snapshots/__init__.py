"""The root file system of a sandbox: read-only layers below, one fresh writable directory above.

Layers are stored once with the owners they were made with and are shown to each sandbox
with its own ids. ``mount_rootfs`` is the verb; ``open_view`` decides how owners are shifted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.snapshots import copy, idmapped, overlay
from runtime.spec import IdRange

__all__ = ["LowerDir", "RootFs", "mount_rootfs"]

# Where the sandbox mounts something anyway. Without them in the lowest layer, the OCI
# runtime would make them in the upper directory, and they would end in the image's layer.
SKELETON = ("dev/", "etc/", "proc/", "sys/", "etc/hosts", "etc/hostname", "etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class LowerDir:
    """A layer's tree on disk. ``base`` is the host id of its uid 0 (0: natural owners)."""

    path: Path
    base: int = 0


@dataclass(frozen=True, slots=True)
class RootFs:
    """A mounted root. What is written to ``path`` is found in ``upper``, owned by ``ids``."""

    path: Path
    upper: Path
    ids: IdRange
    lowers: tuple[LowerDir, ...] = ()


@contextmanager
def mount_rootfs(
    lowers: Sequence[LowerDir],
    *,
    ids: IdRange,
    scratch: Path,
    target: Path,
    mountpoints: Sequence[str] = (),
    bare: bool = False,
    upper: Path | None = None,
) -> Iterator[RootFs]:
    """Mount ``lowers`` (bottom first, none for an empty root) at ``target``, writable.

    ``scratch`` is an empty directory of the caller's on a file system that can hold an
    overlay's upper; ``scratch/upper`` remains after the unmount. ``mountpoints`` are
    directories (or, without a trailing ``/``, files) that will be mounted over: named here,
    they leave no stub in the upper. ``bare`` shows the layers alone, without the mount points
    that every sandbox has: for reading and writing files, not for running. ``upper`` is one that
    an earlier mount left, on the file system of ``scratch``. Raises SpecError
    for too many layers, HostError when the kernel cannot. Every mount is gone at the end.
    """
    points = () if bare else (*SKELETON, *mountpoints)
    lowers = without_repeats(lowers)
    skeleton = LowerDir(_make_skeleton(scratch / "skeleton", ids, points), ids.base)
    if upper is None:
        upper = _make_upper(scratch / "upper", lowers[-1] if lowers else skeleton, ids)
    show = open_view(lowers, ids)
    # The overlay clones the mounts of its layers, so the view is needed for this call only.
    with show([skeleton, *lowers], ids, scratch) as shown:
        overlay.mount(shown, upper, scratch / "work", target)
    try:
        yield RootFs(target, upper, ids, tuple(lowers))
    finally:
        overlay.unmount(target)


def without_repeats(lowers: Sequence[LowerDir]) -> list[LowerDir]:
    """An image may hold the same layer twice (say, an empty one), an overlay may not.

    Whatever the lower one shows, the upper one shows again, so that only the last counts.
    """
    return list(dict.fromkeys(reversed(lowers)))[::-1]


def open_view(lowers: Sequence[LowerDir], ids: IdRange) -> overlay.View:
    """How layers get the sandbox's owners: idmapped mounts, or copies where there are none."""
    for lower in lowers:
        if lower.base != ids.base:
            return idmapped.view if idmapped.supported(lower.path) else copy.view
    return idmapped.view


def _make_skeleton(path: Path, ids: IdRange, mountpoints: Sequence[str]) -> Path:
    path.mkdir(parents=True)
    path.chmod(0o755)  # of an image FROM scratch it is the root; a worker's umask is stricter
    owner = (ids.base, ids.base)
    os.chown(path, *owner)
    for name in mountpoints:
        parts = [part for part in name.split("/") if part not in ("", ".", "..")]
        at = path
        for position, part in enumerate(parts, start=1):
            at = at / part
            if at.exists():
                continue
            if position < len(parts) or name.endswith("/"):
                at.mkdir()
                # runc gives a tmpfs the mode of the directory that it covers.
                at.chmod(0o755 if position < len(parts) or name in SKELETON else 0o1777)
            else:
                at.touch()
                at.chmod(0o644)
            os.chown(at, *owner)
    return path


def _make_upper(path: Path, top: LowerDir, ids: IdRange) -> Path:
    """The upper's own mode and owner are those of ``/`` in the sandbox: take the top layer's."""
    path.mkdir(mode=0o700, parents=True)
    found = top.path.stat()
    os.chown(path, _shift(found.st_uid, top, ids), _shift(found.st_gid, top, ids))
    path.chmod(stat.S_IMODE(found.st_mode))
    os.utime(path, ns=(found.st_mtime_ns, found.st_mtime_ns))
    return path


def _shift(number: int, lower: LowerDir, ids: IdRange) -> int:
    inside = number - lower.base
    return ids.base + inside if 0 <= inside < ids.size else ids.base
