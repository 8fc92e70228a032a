"""Who writes into the registry beside us: any number of uploads, or the collector of its garbage.

The registry's own collector must not run while something is uploaded: of a layer that is found
there, and so not sent again, it may just have taken the bytes ("Garbage collection" in the
documentation of CNCF distribution). That registry answers on loopback, so all who write to it are
processes of this machine, and file locks keep them apart; a process that dies holds nothing.

The same goes for manifests: one that is pushed is wanted before any row says so, and must not be
deleted as unwanted in between.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PAUSE = 0.1  # seconds between two tries


@contextmanager
def uploading(run: Path) -> Iterator[None]:
    """For the block nothing is collected. Waits while it is; ``run`` is the folder of locks."""
    with ExitStack() as stack:
        with _locked(run / "registry-gate.lock", fcntl.LOCK_SH):
            stack.enter_context(_locked(run / "registry-uploads.lock", fcntl.LOCK_SH))
        yield


@contextmanager
def still_uploading(run: Path) -> Iterator[None]:
    """For a thread of who is ``uploading`` already, that may go on for longer."""
    with _locked(run / "registry-uploads.lock", fcntl.LOCK_SH):
        yield


@contextmanager
def alone(run: Path, *, patience: float) -> Iterator[bool]:
    """Whether nothing is uploaded, and for the block nothing begins. Uploads that go on are
    waited for ``patience`` seconds, in which no other begins."""
    with (
        _locked(run / "registry-gate.lock", fcntl.LOCK_EX),
        _sole(run / "registry-uploads.lock", patience) as is_ours,
    ):
        yield is_ours


@contextmanager
def naming(run: Path) -> Iterator[None]:
    """From before a manifest is pushed until a row says so. Waits while one is deleted."""
    with _locked(run / "registry-names.lock", fcntl.LOCK_SH):
        yield


@contextmanager
def nothing_named(run: Path, *, patience: float) -> Iterator[bool]:
    """Whether every manifest that was pushed is in a row, and for the block none is pushed."""
    with _sole(run / "registry-names.lock", patience) as is_ours:
        yield is_ours


@contextmanager
def _sole(path: Path, patience: float) -> Iterator[bool]:
    """Whether nobody else had ``path`` locked for ``patience`` seconds, and if so nobody will."""
    deadline = time.monotonic() + patience
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                if time.monotonic() > deadline:
                    break
                time.sleep(PAUSE)
            else:
                yield True
                return
    yield False


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, how)
        yield
