"""System calls that Python has no wrapper for, by ctypes; each named as the kernel names it.

Thin: arguments in, OSError out. The numbers are those of every architecture for calls
newer than Linux 5.1; older calls go through libc's own functions.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_OPENAT2 = 437
_NR_MOUNT_SETATTR = 442

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_CMD_CREATE = 6

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x00100000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_BIND = 0x1000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

CLONE_NEWNET = 0x40000000


class _OpenHow(ctypes.Structure):
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def _check(result: int, *about: object) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *(str(a) for a in about[:1]))
    return result


def _syscall(number: int, *args: object) -> int:
    return int(_libc.syscall(ctypes.c_long(number), *args))


def openat2(dir_fd: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path)
    for _ in range(128):
        result = _syscall(
            _NR_OPENAT2, dir_fd, name, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        # A rename somewhere in the tree during the walk makes the kernel ask for another try.
        if result >= 0 or ctypes.get_errno() not in (11, 4):
            break
    return _check(result, os.fsdecode(name))


def open_tree(dir_fd: int, path: Path | str, flags: int) -> int:
    name = os.fsencode(path)
    return _check(_syscall(_NR_OPEN_TREE, dir_fd, name, ctypes.c_uint(flags)), path)


def move_mount(from_fd: int, to_dir_fd: int, to_path: Path | str) -> None:
    """Attach the detached mount ``from_fd`` at ``to_path``."""
    name = os.fsencode(to_path)
    _check(
        _syscall(
            _NR_MOVE_MOUNT, from_fd, b"", to_dir_fd, name, ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH)
        ),
        to_path,
    )


def mount_setattr(
    fd: int, *, attr_set: int, userns_fd: int = 0, propagation: int = 0, recursive: bool = False
) -> None:
    attr = _MountAttr(attr_set, 0, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _check(
        _syscall(
            _NR_MOUNT_SETATTR,
            fd,
            b"",
            ctypes.c_uint(flags),
            ctypes.byref(attr),
            ctypes.c_size_t(ctypes.sizeof(attr)),
        )
    )


def new_mount(fs_type: str, attributes: int) -> int:
    """A detached mount of a fresh ``fs_type`` without options (fsopen, fsconfig, fsmount)."""
    context = _check(_syscall(_NR_FSOPEN, fs_type.encode(), ctypes.c_uint(FSOPEN_CLOEXEC)), fs_type)
    try:
        _check(
            _syscall(_NR_FSCONFIG, context, ctypes.c_uint(FSCONFIG_CMD_CREATE), None, None, 0),
            fs_type,
        )
        return _check(
            _syscall(
                _NR_FSMOUNT, context, ctypes.c_uint(FSMOUNT_CLOEXEC), ctypes.c_uint(attributes)
            ),
            fs_type,
        )
    finally:
        os.close(context)


def mount(source: str, target: Path | str, fs_type: str, flags: int, data: str = "") -> None:
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            fs_type.encode(),
            ctypes.c_ulong(flags),
            os.fsencode(data),
        ),
        target,
    )


def umount2(target: Path | str, flags: int = MNT_DETACH) -> None:
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), target)


def unshare(flags: int) -> None:
    """Changes the calling thread only, for the flags that are used here (CLONE_NEWNET)."""
    _check(_libc.unshare(ctypes.c_int(flags)))


def setns(fd: int, kind: int) -> None:
    """Moves the calling thread only, for a network namespace."""
    _check(_libc.setns(fd, ctypes.c_int(kind)))
