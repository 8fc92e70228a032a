"""The machine that a target's commands run on: this one, or one at the end of an ssh connection."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import IO, Protocol

import httpx

from ciserver.releases.targets import commands, facts
from ciserver.releases.targets.commands import QUICK, Pulse, Result, still
from ciserver.releases.targets.facts import Facts

LOCK = Path("/run/gantry-deployed.lock")


class Machine(Protocol):
    """Runs commands and reaches ports. Nothing takes longer than it is told to."""

    @property
    def facts(self) -> Facts:
        """What it was like when it was opened."""

    @property
    def lock(self) -> Path:
        """A file to lock while what only one worker may do there is done."""

    def attempt(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        stdin: bytes = b"",
        keep: int | None = None,
        pulse: Pulse = still,
    ) -> Result:
        """Run ``argv`` to its end, whatever that is. Of more output than an answer has it keeps
        the last ``keep`` bytes, in whole lines. ``pulse`` is called every second or so; what it
        raises ends the command. Raises CommandTimedOut and, without ``keep``, CommandTooLoud."""

    def run(
        self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", pulse: Pulse = still
    ) -> Result:
        """Like ``attempt``, but a failure is a CommandFailed."""

    def stream(
        self, argv: Sequence[str], *, stdin: IO[bytes] | int, stdout: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        """Begin ``argv`` with streams of the caller's, who also ends it: logs that are followed,
        files that are copied. It has no terminal, and its standard error is a pipe."""

    def transport(self, address: str) -> httpx.AsyncBaseTransport | None:
        """How httpx reaches HOST:PORT of the machine; None for the usual way."""

    def connects(self, address: str, timeout: float) -> bool:
        """Whether something listens on HOST:PORT, as seen from the machine itself."""

    def free_port(self) -> int:
        """A loopback port of the machine that nothing listens on at this moment."""


class Here:
    """This very machine. Implements ``Machine``."""

    lock = LOCK

    @property
    def facts(self) -> Facts:
        return replace(_facts(), clock=int(time.time()))  # a worker asks once, and lives for long

    def attempt(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        stdin: bytes = b"",
        keep: int | None = None,
        pulse: Pulse = still,
    ) -> Result:
        return commands.attempt(argv, timeout=timeout, stdin=stdin, keep=keep, pulse=pulse)

    def run(
        self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", pulse: Pulse = still
    ) -> Result:
        return commands.run(argv, timeout=timeout, stdin=stdin, pulse=pulse)

    def stream(
        self, argv: Sequence[str], *, stdin: IO[bytes] | int, stdout: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        return commands.begin(argv, stdin=stdin, stdout=stdout)

    def transport(self, address: str) -> httpx.AsyncBaseTransport | None:
        return None

    def connects(self, address: str, timeout: float) -> bool:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout).close()
        except OSError:
            return False
        return True

    def free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])


@cache
def _facts() -> Facts:
    return facts.parse(
        commands.run(["sh", "-c", f"{facts.PATH}; {facts.script()}"], timeout=QUICK).out
    )
