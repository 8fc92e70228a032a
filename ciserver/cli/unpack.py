"""A tar from a container, unpacked so that nothing gets out of its folder.

Not by ``tarfile``'s own ``extractall``: Python 3.11.2 (Debian 12) lacks the filters of PEP 706, and
those of 3.11.7 can be escaped.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath


def unpack(tar: tarfile.TarFile, target: Path) -> tuple[list[str], list[str]]:
    """What stands at the top of ``target`` now, and sentences about what was left out: names and
    links that lead out of it, and what is no file, directory or link.

    Links are made last, so that nothing is written through one. Permissions of the owner are kept,
    set-uid bits and owners are not. Raises OSError and tarfile.TarError.
    """
    target.mkdir(parents=True, exist_ok=True)
    root = target.resolve()
    tops: dict[str, None] = {}
    left_out: list[str] = []
    links: list[tuple[tarfile.TarInfo, Path]] = []
    for member in tar:
        name = PurePosixPath(member.name)
        path = root / name
        if name.is_absolute() or ".." in name.parts or not _inside(path.parent, root):
            left_out.append(f"{member.name}: it leads out of {target}.")
            continue
        if member.issym() or member.islnk():
            links.append((member, path))
        elif member.isdir() or member.isfile():
            _write(tar, member, path)
        else:
            left_out.append(f"{member.name}: it is no file, directory or link.")
            continue
        tops |= dict.fromkeys(name.parts[:1])
    for member, path in links:
        _link(member, path, root)
    for member, path in links:  # one made later may have changed where an earlier one leads
        if not (os.path.lexists(path) and _inside(path, root)):
            path.unlink(missing_ok=True)
            left_out.append(f"{member.name} -> {member.linkname}: it leads out of {target}.")
    return [str(target / top) for top in tops if os.path.lexists(root / top)], left_out


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a link, too: what it points at is not to be written
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with (
        os.fdopen(os.open(path, flags, (member.mode & 0o777) | 0o600), "wb") as file,
        tar.extractfile(member) as source,  # type: ignore[union-attr]
    ):
        shutil.copyfileobj(source, file)
    os.utime(path, (member.mtime, member.mtime))


def _link(member: tarfile.TarInfo, path: Path, root: Path) -> None:
    points_at = path.parent / member.linkname if member.issym() else root / member.linkname
    taken = path.is_dir() and not path.is_symlink()
    if taken or not (_inside(points_at, root) and _inside(path.parent, root)):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if member.issym():
        path.symlink_to(member.linkname)
    else:
        shutil.copy2(points_at.resolve(), path)
