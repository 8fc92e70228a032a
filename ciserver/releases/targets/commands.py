"""The one place that runs a target's commands; what to run is decided elsewhere."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Protocol

from ciserver.lib.endings import Ending
from ciserver.releases.targets.errors import CommandFailed, CommandTimedOut, CommandTooLoud

QUICK, SLOW = 30.0, 600.0  # seconds for a command that asks, and for one that moves layers
MOST = 16 * 1024 * 1024  # bytes of each stream; a host, or an image's HEALTHCHECK, may say anything
PIECE = 64 * 1024
TIDY = 2.0  # seconds that a command has to end in when it is not wanted any more
BEAT = 1.0  # seconds between two times that a command's ``pulse`` is asked
Pulse = Callable[[], None]


def still() -> None:
    """The pulse of what nobody ends before its time."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command that ended said. Text is decoded leniently: a log may hold any bytes."""

    code: int
    out: str
    err: str


def run(argv: Sequence[str], *, timeout: float, stdin: bytes = b"", pulse: Pulse = still) -> Result:
    """Run ``argv`` to its end. Raises CommandFailed if it fails, CommandTimedOut after ``timeout``
    and CommandTooLoud beyond MOST. ``pulse`` is called every BEAT seconds meanwhile; what it raises
    ends the command.

    The command dies with the thread that called, so that a container cannot appear after the
    next worker has looked for what a dead one left.
    """
    result = attempt(argv, timeout=timeout, stdin=stdin, pulse=pulse)
    if result.code != 0:
        raise CommandFailed(argv, result.code, result.err or result.out)
    return result


def attempt(
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: bytes = b"",
    keep: int | None = None,
    pulse: Pulse = still,
) -> Result:
    """Like ``run``, but a failure is a Result too. With ``keep`` it may say as much as it likes,
    and of each stream only the last whole lines are kept, within that many bytes."""
    start = partial(begin, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return finish(start, argv, timeout=timeout, stdin=stdin, keep=keep, pulse=pulse)


class Running(Protocol):
    """A command that was begun: a ``Process`` here, or one at the other end of a connection."""

    @property
    def stdin(self) -> IO[bytes] | None: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    @property
    def stderr(self) -> IO[bytes] | None: ...

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""

    def ask_to_end(self) -> None:
        """So that a script may remove what it made for a while: a pull its password and half
        layers. Waits a moment for that."""

    def kill(self) -> None:
        """It, and what it began. May be called when it has ended."""


class Process(subprocess.Popen[bytes]):
    """One in a session of its own, see ``begin``. Implements ``Running``."""

    def ask_to_end(self) -> None:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self.pid, signal.SIGTERM)
            self.wait(TIDY)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def finish(
    start: Callable[[], Running],
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: bytes = b"",
    keep: int | None = None,
    pulse: Pulse = still,
) -> Result:
    """What ``attempt`` does, for ``argv`` begun by ``start``. Raises as that does, too."""
    room = MOST if keep is None else keep
    ends = (Ending(room), Ending(room))
    process = start()
    try:
        until = _Until(argv, time.monotonic() + timeout, pulse)
        code = _converse(process, stdin, ends, until, endless=keep is not None)
    except BaseException as error:
        if not isinstance(error, subprocess.TimeoutExpired | _TooMuch):
            process.ask_to_end()
        process.kill()
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise CommandTimedOut(argv, timeout) from None
        if isinstance(error, _TooMuch):
            raise CommandTooLoud(argv, MOST) from None
        raise
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):  # what it did not read is lost
                    pipe.close()
    out, err = (end.whole_lines().decode(errors="replace") for end in ends)
    return Result(code, out, err)


class _TooMuch(Exception):
    """A stream had more than MOST bytes."""


def _converse(
    process: Running,
    stdin: bytes,
    ends: tuple[Ending, Ending],
    until: _Until,
    *,
    endless: bool,
) -> int:
    """Write ``stdin``, read both streams into ``ends`` and wait for the end, all at once: what
    communicate() does, but it keeps whatever comes. The exit code. Raises TimeoutExpired, _TooMuch,
    and what the pulse of ``until`` raises."""
    assert process.stdin and process.stdout and process.stderr  # noqa: S101 - pipes, as begun
    left = memoryview(stdin)
    counts = [0, 0]
    with selectors.DefaultSelector() as selector:
        for number, pipe in enumerate((process.stdout, process.stderr)):
            selector.register(pipe, selectors.EVENT_READ, (pipe, number))
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE, (process.stdin, None))
        while selector.get_map():
            for key, _ in selector.select(until.patience()):
                pipe, number = key.data
                if number is None:
                    left = _write(key.fd, left)
                    done = not left
                else:
                    data = os.read(key.fd, PIECE)
                    ends[number].add(data)
                    counts[number] += len(data)
                    if counts[number] > MOST and not endless:
                        raise _TooMuch
                    done = not data
                if done:
                    selector.unregister(pipe)
                    pipe.close()
    return process.wait(max(until.deadline - time.monotonic(), 0))


@dataclass
class _Until:
    """How long ``argv`` may take, and who is asked meanwhile whether it still should."""

    argv: Sequence[str]
    deadline: float  # monotonic
    pulse: Pulse
    asked: float = field(default_factory=time.monotonic)

    def patience(self) -> float:
        """Seconds to wait before this is called again."""
        now = time.monotonic()
        if now >= self.deadline:
            raise subprocess.TimeoutExpired(self.argv, 0)
        if self.pulse is still:
            return self.deadline - now
        if now - self.asked >= BEAT:
            self.pulse()
            self.asked = now = time.monotonic()
        return max(min(self.deadline, self.asked + BEAT) - now, 0)


def _write(fd: int, data: memoryview) -> memoryview:
    """What is left of ``data``: nothing, if nobody reads it any more."""
    try:
        return data[os.write(fd, data) :] if data else data
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return data[:0]


def begin(
    argv: Sequence[str],
    *,
    stdin: IO[bytes] | int,
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int = subprocess.PIPE,
) -> Process:
    """Start ``argv`` in a session of its own; the caller ends it."""
    return Process(
        ["setpriv", "--pdeathsig", "KILL", "--", *argv],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        env=_environment(),
        cwd="/",
    )


def _environment() -> dict[str, str]:
    """Only what an engine needs: a worker's own settings and keys are none of its business."""
    kept = ("HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST", "CONTAINERS_STORAGE_CONF", "SSL_CERT_FILE")
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LC_ALL": "C.UTF-8"} | {
        name: os.environ[name] for name in kept if name in os.environ
    }
