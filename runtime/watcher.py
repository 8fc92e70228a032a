"""Makes sure that a sandbox does not outlive the process that runs it, however that one dies.

Once per process and state directory, a shell is started that sleeps on a pipe from us.
When we are gone the kernel closes our end, and the shell becomes ``python -m runtime reap``.
(PR_SET_PDEATHSIG would reach runc, but not the container's processes, which runc leaves.)
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from runtime import process
from runtime.process import Command

PACKAGE_PARENT = Path(__file__).resolve().parent.parent

_lock = threading.Lock()
_watched: dict[tuple[int, Path], process.Watcher] = {}  # by (our pid, state directory)


def reap_command(state_root: Path) -> Command:
    """``python -m runtime reap`` for a state directory, without touching the caller's settings."""
    program = f"import sys; sys.path.insert(0, {str(PACKAGE_PARENT)!r}); "
    program += "from runtime.cli import main; sys.exit(main(sys.argv[1:]))"
    return Command(
        (sys.executable, "-I", "-S", "-c", program, "reap", "--state", str(state_root.absolute()))
    )


def ensure(state_root: Path) -> None:
    """Start this process's watcher for ``state_root``, if it has none yet.

    A forked child counts as another process and gets its own; it closes the end that it
    inherited, or its parent's death would go unseen.
    """
    key = (os.getpid(), state_root)
    with _lock:
        if key in _watched:
            return
        for inherited in [other for other in _watched if other[0] != key[0]]:
            os.close(_watched.pop(inherited).pipe)
        _watched[key] = process.start_on_our_death(reap_command(state_root))
