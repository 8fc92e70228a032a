"""A container in the foreground: shown until it ends, ended by Ctrl-C, and always removed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ciserver.cli.engines import Engine

STDERR = 2
Handler = Callable[[int, FrameType | None], object] | int | None
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def heard(do: Handler) -> Iterator[None]:
    """``do``, as signal.signal takes it, for each signal that asks us to end, for the block."""
    before = [signal.signal(one, do) for one in ENDING]
    try:
        yield
    finally:
        for one, handler in zip(ENDING, before, strict=True):
            signal.signal(one, handler)


def show(engine: Engine, name: str, *, interactive: bool, terminal: bool) -> int:
    """Start ``name`` and show what it says until it ends; its exit code.

    The engine's program is in a session of its own, so that Ctrl-C reaches us alone: we ask the
    container to stop and still show its last words; the second time it is killed. In a terminal
    of its own Ctrl-C is the container's.
    """
    helpers: list[subprocess.Popen[bytes]] = []
    ways = itertools.chain([engine.stop(name)], itertools.repeat(engine.kill(name)))

    def end(*_: object) -> None:
        argv = next(ways)  # first of all: the next signal may come before this one is done with
        helpers.append(_quiet(argv))
        words = (
            "It is asked to stop. Once more: it is killed." if "stop" in argv else "It is killed."
        )
        os.write(STDERR, f"{words}\n".encode())  # a handler may not come between a stream's writes

    with heard(end):
        child = subprocess.Popen(
            engine.attach(name, interactive=interactive),
            stdin=None if interactive else subprocess.DEVNULL,
            start_new_session=not terminal,
        )
        code = child.wait()
        for helper in helpers:
            helper.wait()
    return code if code >= 0 else 128 - code


def remove(engine: Engine, name: str) -> None:
    """Nothing that asks us to end now is in a hurry: it is the last thing we do."""
    with heard(signal.SIG_IGN):
        _quiet(engine.remove(name)).wait()


def _quiet(argv: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
