"""The one place that runs a target's commands; what to run is decided elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from ciserver.releases.targets.errors import CommandFailed, CommandTimedOut


@dataclass(frozen=True, slots=True)
class Result:
    """What a command that ended said. Text is decoded leniently: a log may hold any bytes."""

    code: int
    out: str
    err: str


def run(argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Result:
    """Run ``argv`` to its end. Raises CommandFailed if it fails, CommandTimedOut after ``timeout``.

    The command dies with the thread that called, so that a container cannot appear after the
    next worker has looked for what a dead one left.
    """
    result = attempt(argv, timeout=timeout, stdin=stdin)
    if result.code != 0:
        raise CommandFailed(argv, result.code, result.err or result.out)
    return result


def attempt(argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Result:
    """Like ``run``, but a failure is a Result too."""
    process = begin(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise CommandTimedOut(argv, timeout) from None
    return Result(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def begin(
    argv: Sequence[str],
    *,
    stdin: IO[bytes] | int,
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a session of its own; the caller ends it."""
    return subprocess.Popen(
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
