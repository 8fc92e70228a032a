"""A part of a sandbox's cgroup, so that one program among others can be ended whole.

With cgroups v1 it exists in the freezer's hierarchy alone; limits stay the sandbox's.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from runtime.cgroups.usage import Usage
from runtime.errors import HostError

WAIT = 5.0  # seconds
PART = "exec-"  # what the names of parts begin with; the token of their owner follows


class Whole(Protocol):
    """The methods of runtime.cgroups.Cgroup that work for a part too."""

    def processes(self) -> list[int]: ...
    def frozen(self) -> bool: ...
    def kill(self) -> None: ...
    def remove(self) -> bool: ...


class Part:
    """``directory`` is its own; ``argument`` is what the OCI runtime's ``exec --cgroup`` takes."""

    def __init__(self, directory: Path, argument: str, whole: Whole) -> None:
        self.directory = directory
        self.argument = argument
        self._whole = whole

    def create(self) -> None:
        try:
            self.directory.mkdir(mode=0o755)
        except OSError as error:
            raise HostError(
                f"The cgroup {self.directory} cannot be made: {error}.",
                hint="The sandbox may have just ended: try again.",
            ) from error

    def usage(self) -> Usage:
        return Usage()

    def oom_kills(self) -> int:
        return 0  # the sandbox's affair

    def pids_refused(self) -> int:
        return 0

    def pids_refused_above(self) -> int:
        return 0

    def pids_current(self) -> int:
        return 0

    def memory_current(self) -> int:
        return 0

    def processes(self) -> list[int]:
        return self._whole.processes()

    def frozen(self) -> bool:
        return self._whole.frozen()

    def kill(self) -> None:
        self._whole.kill()

    def remove(self) -> bool:
        """Kill what is in it, wait until it has left, remove it. False if it did not leave."""
        deadline = time.monotonic() + WAIT
        while not self._whole.remove():
            if time.monotonic() > deadline:
                return False
            self._whole.kill()
            time.sleep(0.002)
        return True


def parts_of(directory: Path) -> list[str]:
    """Names of the parts below a cgroup's directory."""
    try:
        return sorted(path.name for path in directory.iterdir() if path.name.startswith(PART))
    except OSError:
        return []
