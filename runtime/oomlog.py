"""Which process the kernel killed for memory, as far as its log tells (printk "oom-kill:" lines).

The log may be closed to us (containers, lockdown), overwritten or silenced: then nobody knows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

KMSG = Path("/dev/kmsg")
RECORD = 8192  # bytes; a read(2) gives one record
RECORDS_MAXIMUM = 20_000
# The name is the program's own choice, 15 bytes of anything but a newline.
_KILL = re.compile(
    r"oom-kill:.*?,task_memcg=(?P<cgroup>[^,]*),task=(?P<name>.*),pid=\d+,uid=-?\d+$"
)


def killed_in(cgroup: str, log: Path = KMSG) -> str:
    """Name of the last process killed in ``cgroup`` (a path below the mount) or below it."""
    found = ""
    for line in _records(log):
        if name := name_in(line, cgroup):
            found = name
    return found


def name_in(line: str, cgroup: str) -> str:
    """Pure: the process's name, empty when the record is of something else."""
    match = _KILL.search(line.split("\n", 1)[0])
    if not match or not f"{match['cgroup']}/".startswith(f"{cgroup}/"):
        return ""
    return "".join(c if c.isprintable() else "?" for c in match["name"])


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
