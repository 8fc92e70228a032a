"""What a cgroup has counted, and how its files are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Seconds and bytes used by every process that was in the cgroup.

    Not block io: v1 counts no buffered write, and see runtime.process.Ended.
    """

    user: float = 0.0
    system: float = 0.0
    peak_memory: int = 0
    pids_peak: int = 0
    throttled: float = 0.0


CPU_PERIOD = 100_000  # microseconds; the kernel's default


def quota(cpus: float) -> int:
    """Microseconds of each period that ``cpus`` processors give."""
    return round(cpus * CPU_PERIOD)


def read_text(path: Path) -> str:
    """Content, or nothing where the file or its cgroup is gone (ENODEV while it goes)."""
    try:
        return path.read_text()
    except OSError:
        return ""


def read_int(path: Path) -> int:
    """The file's number; 0 where it is missing or says ``max``."""
    text = read_text(path).strip()
    return int(text) if text.isdecimal() else 0


def read_fields(path: Path) -> dict[str, int]:
    """A flat-keyed file (cgroups-v2 "Interface file formats"): ``key value`` lines."""
    pairs = (line.split() for line in read_text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def read_pids(path: Path) -> list[int]:
    """The pids of a ``cgroup.procs``; 0 stands for processes outside our pid namespace."""
    return [int(pid) for pid in read_text(path).split() if pid != "0"]
