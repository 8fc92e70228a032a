"""Bounds the writable layer of a sandbox: bytes and inodes, counted in the overlay's upper.

A watcher that counts and kills, not a quota: most installations' file systems have no project
quota, and many kernels not even its format. An ext4 image per sandbox, which would be exact, was
measured: 14 ms to make and drop (a sandbox takes 40), writing six times slower, and the layer has
to be copied out again (1.4 s per 1,000 MiB). Counting costs 5 us per file, at most a tenth of
one processor. What grows between two counts is caught by the last one, before the outcome is
known, so that no layer above the limit is ever kept.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.spec import Limits

BLOCK = 512  # stat(2): the unit of st_blocks
DEEPEST = 400  # directories, each an open descriptor while counting
GLANCE = 0.1  # seconds between two looks at the file system's own figures
REGULAR = 5.0  # seconds between two counts where those show nothing
BUSY = 0.1  # of the time may be spent counting
BLIND_TRIES = 20


@dataclass(frozen=True, slots=True)
class Count:
    """Bytes on disk (holes are free) and inodes. ``blind``: some of it could not be opened."""

    size: int = 0
    inodes: int = 0
    too_deep: bool = False
    blind: bool = False

    def over(self, limits: Limits) -> str:
        """The sentence on the limit that is exceeded; empty where none is."""
        if self.too_deep:
            return f"directories are nested deeper than {DEEPEST}"
        if limits.disk is not None and self.size > limits.disk:
            return f"disk limit of {words(limits.disk)} reached"
        if limits.inodes is not None and self.inodes > limits.inodes:
            return f"limit of {limits.inodes} files reached"
        return ""


def words(count: int) -> str:
    """``10 GiB``, ``512 MiB``, ``1500 bytes``."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit and count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count} bytes"


def count(root: Path, limits: Limits) -> Count:
    """What is below ``root``; counting stops soon after a limit. Follows no link."""
    counter = _Counter(limits)
    counter.enter(str(root), None, 0)
    return Count(counter.size, counter.inodes, counter.too_deep, counter.blind)


class _Counter:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seen: set[int] = set()  # inodes with several names
        self.size = self.inodes = 0
        self.too_deep = self.blind = False

    def enter(self, name: str, folder: int | None, depth: int) -> None:
        """Count the directory ``name`` of ``folder``; nothing where it is gone."""
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            self.walk(os.open(name, flags, dir_fd=folder), depth)
        except OSError as error:
            # What other deep trees that are counted at this moment hold open hides nothing.
            self.blind |= error.errno in (errno.EMFILE, errno.ENFILE)

    def walk(self, fd: int, depth: int) -> None:
        """Count a directory, whose ``fd`` is closed; it may change meanwhile."""
        try:
            names = []
            with os.scandir(fd) as listing:
                for entry in listing:
                    with suppress(OSError):
                        self._add(entry.stat(follow_symlinks=False))
                    if entry.is_dir(follow_symlinks=False):
                        names.append(entry.name)
                    if self._full():
                        return
            if depth >= DEEPEST and names:
                self.too_deep = True
                return
            for name in names:
                self.enter(name, fd, depth + 1)
                if self._full():
                    return
        finally:
            os.close(fd)

    def _full(self) -> bool:
        return bool(Count(self.size, self.inodes, self.too_deep).over(self._limits))

    def _add(self, found: os.stat_result) -> None:
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            if found.st_ino in self._seen:
                return
            self._seen.add(found.st_ino)
        self.size += found.st_blocks * BLOCK
        self.inodes += 1


def nameless(pids: Iterable[int]) -> int:
    """Bytes of the files in the root file systems of ``pids`` that are deleted but held open.

    By mount, not by device: overlayfs gives the files of a layer that is on another file system
    than the rest a device number of their own.
    """
    held: dict[tuple[int, int], int] = {}
    for pid in pids:
        with suppress(OSError):
            root = _mount_of_root(pid)
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    found = entry.stat()
                    if found.st_nlink == 0 and _mount_id(f"{pid}/fdinfo/{entry.name}") == root:
                        held[(found.st_dev, found.st_ino)] = found.st_blocks * BLOCK
    return sum(held.values())


def _mount_of_root(pid: int) -> str:
    fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
    try:
        return _mount_id(f"self/fdinfo/{fd}")
    finally:
        os.close(fd)


def _mount_id(fdinfo: str) -> str:
    """``mnt_id`` of Documentation/filesystems/proc.rst, 3.8; unique among all namespaces."""
    lines = Path("/proc", fdinfo).read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("mnt_id:"))


class DiskWatch:
    """A thread that counts between ``with`` and its end, and calls ``end`` once with a sentence.

    The file system's own figures are looked at every 100 ms: when they have grown by what the
    sandbox has left, it is counted at once, else every 5 s.
    """

    def __init__(
        self,
        limits: Limits,
        upper: Path,
        pids: Callable[[], list[int]],
        end: Callable[[str], None],
    ) -> None:
        self._limits = limits
        self._upper = upper
        self._pids = pids
        self._end = end
        self._done = threading.Event()
        self._last = Count()
        self._used = self._fs_used()
        self._thread = threading.Thread(target=self._loop, name="sandbox-disk", daemon=True)

    def __enter__(self) -> DiskWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def judge(self) -> str:
        """The last count, when the process has ended: the sentence, or nothing."""
        self.__exit__()
        for _ in range(BLIND_TRIES):
            found = count(self._upper, self._limits)
            if not found.blind:
                break
            time.sleep(GLANCE)
        if found.blind and not found.over(self._limits):
            return "what it wrote cannot be counted: this process has too many files open"
        return found.over(self._limits)

    def _loop(self) -> None:
        not_before = 0.0
        regular = time.monotonic() + REGULAR
        while not self._done.wait(GLANCE):
            now = time.monotonic()
            if now < not_before or not (self._suspicious() or now >= regular):
                continue
            sentence = self._count()
            if sentence:
                self._end(sentence)
                return
            took = time.monotonic() - now
            not_before = now + took / BUSY
            regular = now + max(REGULAR, took / BUSY)

    def _count(self) -> str:
        self._used = self._fs_used()
        found = count(self._upper, self._limits)
        if not found.over(self._limits):
            found = replace(found, size=found.size + nameless(self._pids()))
        self._last = found
        return found.over(self._limits)

    def _suspicious(self) -> bool:
        """Whether the file system has grown so much that the sandbox may be over its limit."""
        now = self._fs_used()
        grown = Count(
            self._last.size + max(0, now.size - self._used.size),
            self._last.inodes + max(0, now.inodes - self._used.inodes),
        )
        return bool(grown.over(self._limits))

    def _fs_used(self) -> Count:
        found = os.statvfs(self._upper)
        return Count(
            (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree
        )
