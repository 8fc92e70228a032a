"""Trees for tests: made from a short description, and described again exactly."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from builders.images import tarformat
from builders.images.layers import LayerLimits, Written, write_tree
from builders.images.streams import HashingSink
from builders.images.tarformat import Member

EPOCH = 1_700_000_000


class Bytes(bytearray):
    """A sink that keeps everything."""

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self.extend(data)


def tar_of(tree: Path, *, base: int = 0, epoch: int | None = EPOCH) -> bytes:
    sink = Bytes()
    write_tree(tree, sink, base=base, epoch=epoch)
    return bytes(sink)


def digest_of(tree: Path, *, base: int = 0, epoch: int | None = EPOCH) -> str:
    sink = HashingSink()
    write_tree(tree, sink, base=base, epoch=epoch)
    return sink.digest


def written(tree: Path, limits: LayerLimits) -> Written:
    return write_tree(tree, Bytes(), base=0, epoch=EPOCH, limits=limits)


def whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def describe(tree: Path, *, base: int = 0) -> Mapping[str, tuple[object, ...]]:
    """Everything about every path that a layer carries; hard links share their first path."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    for folder, folders, files in os.walk(tree):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            status = path.lstat()
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = str(path.readlink())
            elif stat.S_ISCHR(status.st_mode):
                content = status.st_rdev
            removed = stat.S_ISCHR(status.st_mode)
            first = inodes.setdefault(status.st_ino, str(path)) if not path.is_dir() else str(path)
            found[str(path.relative_to(tree))] = (
                stat.S_IFMT(status.st_mode),
                stat.S_IMODE(status.st_mode),
                0 if removed else status.st_uid - base,
                0 if removed else status.st_gid - base,
                0 if removed else status.st_mtime_ns,
                content,
                "" if removed else str(Path(first).relative_to(tree)),
                () if removed else _xattrs(path),
            )
    return found


def _xattrs(path: Path) -> tuple[tuple[str, bytes], ...]:
    """Without what overlayfs notes for itself."""
    names = [] if path.is_symlink() else sorted(os.listxattr(path))
    kept = [n for n in names if not n.startswith("trusted.overlay.") or n.endswith(".opaque")]
    return tuple((name, os.getxattr(path, name)) for name in kept)


def tar(*members: Member, content: bytes = b"") -> bytes:
    """An archive of ``members``; regular files hold ``content``."""
    parts = []
    for member in members:
        data = content if member.type == tarformat.REGULAR else b""
        member.size = len(data)
        parts += [tarformat.encode(member), data, bytes(tarformat.padding(len(data)))]
    return b"".join(parts) + tarformat.END


def nest(tree: Path, deep: int) -> None:
    """``deep`` folders within one another, deeper than a path can name."""
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(deep):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
