"""Asks what runs in a sandbox to end by itself, before everything in it is killed.

SIGTERM goes to its first process alone, as docker and Kubernetes send it. Of process 1 the kernel
keeps it away unless that has a handler (pid_namespaces(7)): then nobody need wait, and nobody
does, so a shell or a build that knows nothing of signals ends at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

TERM = 1 << (signal.SIGTERM - 1)  # its bit in the masks of proc(5)


class Group(Protocol):
    """The cgroup, as far as it is needed here."""

    def processes(self) -> list[int]: ...
    def frozen(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Process:
    """``inside`` is its pid in its own namespace; ``age`` is smaller for who was there before."""

    pid: int
    inside: int
    parent: int
    age: int
    listens: bool


def ask_to_end(group: Group) -> Callable[[], bool] | None:
    """Ask its first process; what tells whether that is still there. None where it is in vain."""
    if group.frozen():
        return None
    first = first_of([found for pid in group.processes() if (found := look(pid))])
    if first is None or not first.listens:
        return None
    with suppress(OSError):
        os.kill(first.pid, signal.SIGTERM)
        return lambda: _is_there(first)
    return None


def _is_there(process: Process) -> bool:
    now = look(process.pid)
    return now is not None and now.age == process.age


def first_of(found: Sequence[Process]) -> Process | None:
    """Process 1; of a program that joined later, the one that none of its own started."""
    pids = {each.pid for each in found}
    roots = [each for each in found if each.parent not in pids]
    return min(roots, key=lambda each: (each.inside != 1, each.age), default=None)


def look(pid: int) -> Process | None:
    """None for one that has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if state in "ZX":
        return None
    fields = dict(line.partition(":\t")[::2] for line in text.splitlines())
    inside = int(fields["NSpid"].split()[-1])
    caught, ignored = (int(fields[name], 16) & TERM for name in ("SigCgt", "SigIgn"))
    listens = bool(caught) if inside == 1 else not ignored
    return Process(pid, inside, int(fields["PPid"]), int(rest[18]), listens)
