"""Control groups v2 (Documentation/admin-guide/cgroup-v2.rst).

Two levels: the outer one is ours and is counted, the inner one (``box``) is made and
removed by the OCI runtime. crun removes the cgroup that it was given when the container
ends; the outer one keeps the sums, because v2's counters are hierarchical.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from runtime.cgroups import directories
from runtime.cgroups.disks import whole_disks
from runtime.cgroups.part import Part, parts_of
from runtime.cgroups.usage import (
    CPU_PERIOD,
    Usage,
    quota,
    read_fields,
    read_int,
    read_pids,
    read_text,
)
from runtime.errors import HostError
from runtime.spec import Limits

CONTROLLERS = ("cpu", "memory", "pids")
OPTIONAL = ("io",)  # for weights
BOX = "box"


class Cgroup:
    """See runtime.cgroups.Cgroup."""

    def __init__(self, root: Path, path: str) -> None:
        self._root = root
        self._path = path
        self._dir = root / path.lstrip("/")
        self._box = self._dir / BOX
        # What the box counted when it was last looked at: some runtimes remove it at the end.
        self._throttled_us = self._refused = 0
        self._refused_before = 0

    @property
    def box(self) -> str:
        return f"{self._path}/{BOX}"

    def create(self) -> None:
        directories.make(self._dir)
        _enable_controllers(self._root)
        above = list(reversed(self._dir.relative_to(self._root).parents))[1:]
        for directory in [*(self._root / path for path in above), self._dir]:
            # Whatever our umask is: mounting cgroup2 inside walks here as a mapped user (EACCES).
            directory.chmod(0o755)
            _enable_controllers(directory)
        self._refused_before = self._refused_here(self._dir.parent)

    def set_limits(self, limits: Limits) -> None:
        wanted = {
            "memory.max": limits.memory,
            "cpu.max": limits.cpus and f"{quota(limits.cpus)} {CPU_PERIOD}",
            "pids.max": limits.pids,
        }
        try:
            for name, value in wanted.items():
                if value is not None:
                    (self._dir / name).write_text(f"{value}")
            if limits.memory is not None and (self._dir / "memory.swap.max").exists():
                (self._dir / "memory.swap.max").write_text("0")
            for name, rate in (("rbps", limits.io_read), ("wbps", limits.io_write)):
                for disk in whole_disks() if rate is not None else ():
                    (self._dir / "io.max").write_text(f"{disk} {name}={rate}")
        except OSError as error:
            raise HostError(
                f"A limit of the cgroup {self._path} cannot be set: {error}.",
                hint="Ask for less, or leave that limit out.",
            ) from error
        if limits.io_weight is not None:
            # Each present only with its scheduler (iocost, BFQ): a preference, not a promise.
            for name in ("io.weight", "io.bfq.weight"):
                with suppress(OSError):
                    (self._dir / name).write_text(f"default {limits.io_weight}")

    def usage(self) -> Usage:
        cpu = read_fields(self._dir / "cpu.stat")
        return Usage(
            user=cpu.get("user_usec", 0) / 1e6,
            system=cpu.get("system_usec", 0) / 1e6,
            peak_memory=read_int(self._dir / "memory.peak"),
            pids_peak=read_int(self._dir / "pids.peak"),
            throttled=self._throttled(),
        )

    def oom_kills(self) -> int:
        self._throttled()  # asked often, also shortly before the box goes
        events = read_fields(self._dir / "memory.events")
        return max(events.get("oom_kill", 0), events.get("oom_group_kill", 0))

    def pids_refused(self) -> int:
        """Before Linux 6.11 only the forking task's own cgroup counts this, not its parents."""
        self._refused = max(self._refused, *map(self._refused_in, (self._box, self._dir)))
        return self._refused

    def pids_refused_above(self) -> int:
        """Since Linux 6.11 a refusal counts where the limit is: at the budget, for all in it, and
        at what is above. So ``pids.events`` of the budget has the neighbours' own limits too."""
        return self._refused_here(self._dir.parent) - self._refused_before

    @staticmethod
    def _refused_in(directory: Path) -> int:
        return read_fields(directory / "pids.events").get("max", 0)

    @staticmethod
    def _refused_here(directory: Path) -> int:
        return read_fields(directory / "pids.events.local").get("max", 0)

    def pids_current(self) -> int:
        return read_int(self._dir / "pids.current")

    def memory_current(self) -> int:
        return read_int(self._dir / "memory.current")

    def _throttled(self) -> float:
        """Of the box, which has the quota."""
        seen = read_fields(self._box / "cpu.stat").get("throttled_usec", 0)
        self._throttled_us = max(self._throttled_us, seen)
        return self._throttled_us / 1e6

    def processes(self) -> list[int]:
        found = read_pids(self._dir / "cgroup.procs")
        for directory in self._children():
            found += read_pids(directory / "cgroup.procs")
        return found

    def _children(self) -> list[Path]:
        """Cgroups below, deepest first."""
        return [Path(at) for at, _, _ in os.walk(self._dir, topdown=False) if Path(at) != self._dir]

    def kill(self) -> None:
        try:
            # Without O_CREAT, with which the kernel answers EACCES where there is no such file.
            fd = os.open(self._dir / "cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"1")
            finally:
                os.close(fd)
        except FileNotFoundError:  # before Linux 5.14
            self.freeze(True)  # what stands still cannot fork meanwhile; it dies nevertheless
            for pid in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.freeze(False)
        except OSError:
            return

    def freeze(self, frozen: bool) -> None:
        with suppress(OSError):
            (self._dir / "cgroup.freeze").write_text("1" if frozen else "0")

    def frozen(self) -> bool:
        return read_fields(self._dir / "cgroup.events").get("frozen", 0) == 1

    def part(self, name: str) -> Part:
        return Part(self._box / name, f"/{name}", Cgroup(self._root, f"{self.box}/{name}"))

    def parts(self) -> list[str]:
        return parts_of(self._box)

    def remove(self) -> bool:
        for directory in [*self._children(), self._dir]:
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True


def _enable_controllers(directory: Path) -> None:
    """Hand the controllers down to the children of ``directory``."""
    control = directory / "cgroup.subtree_control"
    have = set(read_text(control).split())
    for name in OPTIONAL:
        if name not in have:
            with suppress(OSError):
                control.write_text(f"+{name}")
    for name in CONTROLLERS:
        if name in have:
            continue
        try:
            control.write_text(f"+{name}")
        except OSError as error:
            raise HostError(
                f"The cgroup controller {name} cannot be enabled in {directory}: {error}.",
                hint="Run on the host itself, or delegate its controllers to this container.",
            ) from error
