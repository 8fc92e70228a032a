"""The control group of one sandbox: counters, signs of overrun, kill and removal.

The OCI runtime writes the limits (``linux.resources``); everything that is read or
ended afterwards is ours. v1.py and v2.py have the same names; ``open_cgroup`` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from runtime import host
from runtime.cgroups import v1, v2
from runtime.cgroups.part import PART, Part
from runtime.cgroups.usage import Usage
from runtime.spec import Limits, Parent

__all__ = ["PART", "Cgroup", "Part", "Usage", "open_cgroup"]


class Cgroup(Protocol):
    """One sandbox's cgroup. Reading after removal gives zeros; remove and kill may be repeated."""

    @property
    def box(self) -> str:
        """The path to hand to the OCI runtime (``linux.cgroupsPath``)."""

    def create(self) -> None:
        """Make it and its parents, with the controllers that are needed. Raises HostError."""

    def set_limits(self, limits: Limits) -> None:
        """Bound memory with swap, cpus, pids, io; a weight of io where there is one. HostError."""

    def usage(self) -> Usage:
        """What its processes have used so far."""

    def oom_kills(self) -> int:
        """How often the kernel killed one of its processes for memory."""

    def pids_refused(self) -> int:
        """How often a new process was refused because of the process limit."""

    def pids_refused_above(self) -> int:
        """How often one was refused to it or its neighbours because of the parent's limit, where
        the kernel counts that apart. It cannot be told whose it was."""

    def pids_current(self) -> int:
        """How many processes and threads are in it now."""

    def memory_current(self) -> int:
        """How many bytes it holds now, page cache included."""

    def processes(self) -> list[int]:
        """Host pids of everything in it."""

    def kill(self) -> None:
        """End everything in it, at once and whole: nothing can fork its way out."""

    def freeze(self, frozen: bool) -> None:
        """Ask the kernel to stop everything in it, or to let it go on; see ``frozen``."""

    def frozen(self) -> bool:
        """Whether everything in it stands still."""

    def part(self, name: str) -> Part:
        """A part for a program that joins later; nothing is made yet. See runtime.cgroups.part."""

    def parts(self) -> list[str]:
        """Names of the parts that there are."""

    def remove(self) -> bool:
        """Remove it, once it is empty. False while something is still in it."""


@dataclass(frozen=True, slots=True)
class CgroupName:
    """Where a cgroup is below the mount: ``/gantry/<parent>/<name>``."""

    name: str
    parent: str = ""

    @property
    def path(self) -> str:
        return "/" + "/".join(filter(None, (host.CGROUP_PARENT, self.parent, self.name)))


def open_cgroup(name: CgroupName) -> Cgroup:
    """The cgroup called ``name`` in this machine's version; nothing is made yet."""
    if host.cgroup_version() is host.CgroupVersion.V2:
        return v2.Cgroup(host.CGROUP_ROOT, name.path)
    return v1.Cgroup(host.CGROUP_ROOT, name.path)


def set_budget(parent: Parent) -> None:
    """Write a parent's limits. Call it while a sandbox has its cgroup in it, so that it stays."""
    open_cgroup(CgroupName("", parent.name)).set_limits(parent.limits)


def remove_parent(parent: str) -> None:
    """Remove a pipeline's parent cgroup if nothing is in it."""
    path = CgroupName("", parent).path if parent else ""
    if path:
        open_cgroup(CgroupName("", parent)).remove()
