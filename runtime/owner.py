"""Which process of this machine something belongs to, so that a later one can tell it is dead.

A token ``pid.start.boot`` names a process for good: pids come again, start times (in
clock ticks since boot, proc(5) stat field 22) within one boot do not.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:12]


def _start_time(pid: int) -> str:
    """Empty when there is no such process, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return "" if fields[0] in "ZX" else fields[19]


def token() -> str:
    """The token of the calling process."""
    return f"{os.getpid()}.{_start_time(os.getpid())}.{_boot()}"


def is_alive(owner: str) -> bool:
    """Whether the process of a token still runs. What is no token has no owner."""
    pid, _, rest = owner.partition(".")
    start, _, boot = rest.partition(".")
    if not pid.isdecimal() or not start.isdecimal():
        return False
    return boot == _boot() and _start_time(int(pid)) == start
