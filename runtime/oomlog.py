"""Which process the kernel killed for memory, as far as its log tells (printk "oom-kill:" lines).

The log may be closed to us (containers, lockdown), overwritten or silenced: then nobody knows.
It tells the pid that the host has for the process; the one that the sandbox knew it by
(NSpid of proc_pid_status(5)) is gone with the process, and must have been read before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

KMSG = Path("/dev/kmsg")
RECORD = 8192  # bytes; a read(2) gives one record
RECORDS_MAXIMUM = 20_000
PIDS_MAXIMUM = 10_000  # remembered of one sandbox
# The name is the program's own choice, 15 bytes of anything but a newline.
_KILL = re.compile(
    r"oom-kill:.*?,task_memcg=(?P<cgroup>[^,]*),task=(?P<name>.*),pid=(?P<pid>\d+),uid=-?\d+$"
)


class Victim(NamedTuple):
    """The process's name, and its pid as the host has it."""

    name: str
    pid: int


class Victims:
    """Tells who was killed for memory in ``cgroup`` (a path below the mount), by pids inside."""

    def __init__(self, cgroup: str, processes: Callable[[], list[int]], log: Path = KMSG) -> None:
        self._cgroup = cgroup
        self._processes = processes
        self._log = log
        self._inner: dict[int, int] = {}

    def look(self) -> None:
        """Note the processes there are now. To be called often: whom it never saw has no pid."""
        now = self._processes()
        if len(self._inner) > PIDS_MAXIMUM:
            self._inner = {pid: self._inner[pid] for pid in now if pid in self._inner}
        for pid in now:
            if pid not in self._inner and (inner := _inner_pid(pid)):
                self._inner[pid] = inner

    def last(self) -> str:
        """``pytest (pid 12)``, without a pid that was not seen; empty if the log tells nobody."""
        victim = killed_in(self._cgroup, self._log)
        if victim is None:
            return ""
        # What its parent has not heard of yet can still be asked.
        inner = self._inner.get(victim.pid) or _inner_pid(victim.pid)
        return f"{victim.name} (pid {inner})" if inner else victim.name


def killed_in(cgroup: str, log: Path = KMSG) -> Victim | None:
    """The last process killed in ``cgroup`` (a path below the mount) or below it."""
    found = None
    for line in _records(log):
        found = victim_in(line, cgroup) or found
    return found


def victim_in(line: str, cgroup: str) -> Victim | None:
    """Pure: None when the record is of something else."""
    match = _KILL.search(line.split("\n", 1)[0])
    if not match or not f"{match['cgroup']}/".startswith(f"{cgroup}/"):
        return None
    name = "".join(c if c.isprintable() else "?" for c in match["name"])
    return Victim(name, int(match["pid"]))


def _inner_pid(pid: int) -> int:
    """The pid in the innermost namespace; 0 when there is no such process, or it is of ours."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    ids = status.partition(b"\nNSpid:")[2].partition(b"\n")[0].split()
    return int(ids[-1]) if len(ids) > 1 else 0


def _records(log: Path) -> Iterator[str]:
    try:
        fd = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for _ in range(RECORDS_MAXIMUM):
            try:
                record = os.read(fd, RECORD)
            except BrokenPipeError:  # overwritten meanwhile: the next read goes on behind it
                continue
            except OSError:  # EAGAIN: that was all
                return
            if not record:
                return
            yield record.decode(errors="replace")
    finally:
        os.close(fd)
