"""Control groups v1, also the hybrid layout (Documentation/admin-guide/cgroup-v1/).

One directory of the same path in each hierarchy. runc is told to keep them at the end.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from runtime.cgroups import directories
from runtime.cgroups.disks import whole_disks
from runtime.cgroups.part import Part, parts_of
from runtime.cgroups.usage import Usage, quota, read_fields, read_int, read_pids, read_text
from runtime.errors import HostError
from runtime.spec import Limits

KILL_ROUNDS = 20


class Cgroup:
    """See runtime.cgroups.Cgroup."""

    def __init__(self, root: Path, path: str) -> None:
        self._root = root
        self._path = path

    @property
    def box(self) -> str:
        return self._path

    def _at(self, controller: str) -> Path:
        return self._root / controller / self._path.lstrip("/")

    def _everywhere(self) -> list[Path]:
        """Its directory in every hierarchy; links such as ``cpu -> cpu,cpuacct`` are no more."""
        return [
            Path(entry.path) / self._path.lstrip("/")
            for entry in os.scandir(self._root)
            if entry.is_dir(follow_symlinks=False)
        ]

    def create(self) -> None:
        for directory in self._everywhere():
            directories.make(directory)

    def set_limits(self, limits: Limits) -> None:
        try:
            if limits.memory is not None:
                self._set_memory(limits.memory)
            if limits.cpus is not None:
                (self._at("cpu") / "cpu.cfs_quota_us").write_text(f"{quota(limits.cpus)}")
            if limits.pids is not None:
                (self._at("pids") / "pids.max").write_text(f"{limits.pids}")
            for name, rate in (("read", limits.io_read), ("write", limits.io_write)):
                for disk in whole_disks() if rate is not None else ():
                    file = self._at("blkio") / f"blkio.throttle.{name}_bps_device"
                    file.write_text(f"{disk} {rate}")
        except OSError as error:
            raise HostError(
                f"A limit of the cgroup {self._path} cannot be set: {error}.",
                hint="Ask for less, or leave that limit out.",
            ) from error
        if limits.io_weight is not None:
            # Present only while a disk's scheduler is BFQ: a preference, not a promise.
            with suppress(OSError):
                (self._at("blkio") / "blkio.bfq.weight").write_text(f"{limits.io_weight}")

    def _set_memory(self, limit: int) -> None:
        """With swap, which may never be below without: so what is raised, swap first."""
        memory = self._at("memory")
        swap = memory / "memory.memsw.limit_in_bytes"
        if swap.exists() and read_int(swap) < limit:
            swap.write_text(f"{limit}")
        (memory / "memory.limit_in_bytes").write_text(f"{limit}")
        if swap.exists():
            swap.write_text(f"{limit}")

    def usage(self) -> Usage:
        return Usage(
            user=read_int(self._at("cpuacct") / "cpuacct.usage_user") / 1e9,
            system=read_int(self._at("cpuacct") / "cpuacct.usage_sys") / 1e9,
            peak_memory=read_int(self._at("memory") / "memory.max_usage_in_bytes"),
            pids_peak=read_int(self._at("pids") / "pids.peak"),
            throttled=read_fields(self._at("cpu") / "cpu.stat").get("throttled_time", 0) / 1e9,
        )

    def oom_kills(self) -> int:
        return read_fields(self._at("memory") / "memory.oom_control").get("oom_kill", 0)

    def pids_refused(self) -> int:
        return read_fields(self._at("pids") / "pids.events").get("max", 0)

    def pids_refused_above(self) -> int:
        return 0  # the cgroup of the process that forks counts, whichever limit it was

    def pids_current(self) -> int:
        return read_int(self._at("pids") / "pids.current")

    def memory_current(self) -> int:
        return read_int(self._at("memory") / "memory.usage_in_bytes")

    def processes(self) -> list[int]:
        found = read_pids(self._at("freezer") / "cgroup.procs")
        for name in self.parts():
            found += read_pids(self._at("freezer") / name / "cgroup.procs")
        return found

    def kill(self) -> None:
        """Frozen first: what cannot run cannot fork while it is being killed."""
        state = self._at("freezer") / "freezer.state"
        with suppress(OSError):
            state.write_text("FROZEN")
        for _ in range(KILL_ROUNDS):
            for pid in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if read_text(state).strip() != "FREEZING":
                break
            time.sleep(0.005)  # a process inside a long system call freezes at its end
        with suppress(OSError):
            state.write_text("THAWED")

    def freeze(self, frozen: bool) -> None:
        with suppress(OSError):
            (self._at("freezer") / "freezer.state").write_text("FROZEN" if frozen else "THAWED")

    def frozen(self) -> bool:
        return read_text(self._at("freezer") / "freezer.state").strip() == "FROZEN"

    def part(self, name: str) -> Part:
        whole = Cgroup(self._root, f"{self._path}/{name}")
        return Part(self._at("freezer") / name, f"freezer:/{name}", whole)

    def parts(self) -> list[str]:
        return parts_of(self._at("freezer"))

    def remove(self) -> bool:
        for name in self.parts():
            with suppress(OSError):
                (self._at("freezer") / name).rmdir()
        gone = True
        for directory in self._everywhere():
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone
