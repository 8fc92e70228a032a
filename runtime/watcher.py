"""Makes sure that a sandbox does not outlive the process that runs it, however that one dies.

Once per process and state directory, a shell is started that sleeps on a pipe from us.
When we are gone the kernel closes our end, and the shell becomes ``python -m runtime reap``.
(PR_SET_PDEATHSIG would reach runc, but not the container's processes, which runc leaves.)

It has output in its hands as well: what is in a FIFO is gone with the last descriptor of it,
and a sandbox may end by itself before the reaper is there.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime import process
from runtime.process import Command

PACKAGE_PARENT = Path(__file__).resolve().parent.parent
MOST_AT_ONCE = 250  # descriptors in one message; SCM_MAX_FD is 253
MOST_MESSAGES = 64


class Keeper:
    """Descriptors that stay open when this process is killed.

    They lie in the queue of a socket (SCM_RIGHTS, unix(7)) that the watcher has open and never
    reads; whoever inherits ``queue`` keeps them. We have it open as well, to take out what is over.
    """

    def __init__(self) -> None:
        self._ours, self.queue = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._fds: list[int] = []
        self._messages = 0

    @contextmanager
    def keeping(self, fds: Sequence[int]) -> Iterator[None]:
        """For the block, in which they must not be closed."""
        with self._lock:
            self._fds += fds
            if self._messages < MOST_MESSAGES:
                self._send(fds)
            else:
                self._send_anew()
        try:
            yield
        finally:
            with self._lock:
                self._fds = [fd for fd in self._fds if fd not in fds]
                self._send_anew()

    def _send(self, fds: Sequence[int]) -> None:
        for first in range(0, len(fds), MOST_AT_ONCE):
            socket.send_fds(self._ours, [b"x"], list(fds[first : first + MOST_AT_ONCE]))
            self._messages += 1

    def _send_anew(self) -> None:
        """All there are, then out with the old messages: killed in between, none is missing."""
        old, self._messages = self._messages, 0
        self._send(self._fds)
        for _ in range(old):
            self.queue.recv(1)  # without room for descriptors: the kernel closes them

    def close(self) -> None:
        self._ours.close()
        self.queue.close()


@dataclass(frozen=True, slots=True)
class _Watched:
    watcher: process.Watcher
    keeper: Keeper

    def close(self) -> None:
        os.close(self.watcher.pipe)
        self.keeper.close()


_lock = threading.Lock()
_watched: dict[tuple[int, Path], _Watched] = {}  # by (our pid, state directory)


def reap_command(state_root: Path) -> Command:
    """``python -m runtime reap`` for a state directory, without touching the caller's settings."""
    program = f"import sys; sys.path.insert(0, {str(PACKAGE_PARENT)!r}); "
    program += "from runtime.cli import main; sys.exit(main(sys.argv[1:]))"
    return Command(
        (sys.executable, "-I", "-S", "-c", program, "reap", "--state", str(state_root.absolute()))
    )


def ensure(state_root: Path) -> Keeper:
    """Start this process's watcher for ``state_root``, if it has none yet; what it keeps open.

    A forked child counts as another process and gets its own; it closes the ends that it
    inherited, or its parent's death would go unseen.
    """
    key = (os.getpid(), state_root)
    with _lock:
        if key not in _watched:
            for inherited in [other for other in _watched if other[0] != key[0]]:
                _watched.pop(inherited).close()
            keeper = Keeper()
            watcher = process.start_on_our_death(
                reap_command(state_root), holding=keeper.queue.fileno()
            )
            _watched[key] = _Watched(watcher, keeper)
        return _watched[key].keeper


def dismiss(state_root: Path) -> None:
    """This process has nothing left that had to be reaped: its watcher ends and does nothing."""
    with _lock:
        watched = _watched.pop((os.getpid(), state_root), None)
    if watched is not None:
        watched.watcher.process.kill()
        watched.watcher.process.wait()
        watched.close()
