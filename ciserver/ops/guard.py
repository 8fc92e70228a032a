"""Kills what the supervisor leaves when it is killed itself.

PR_SET_PDEATHSIG reaches the supervisor's direct children only; a worker's pool processes would
live on. This process reads ``+PGID`` and ``-PGID`` lines; when its input ends, it kills every
process group still on the list. Standard library only: it starts in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TextIO


def remaining(lines: TextIO) -> set[int]:
    """The process groups that were added and not taken off again when the input ended."""
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    return groups


def kill(groups: set[int]) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    kill(remaining(sys.stdin))
