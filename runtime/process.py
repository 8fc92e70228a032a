"""Starts programs of the host: the only module of this package that uses subprocess."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import HostError
from runtime.outlets import Outlets

# What the OCI runtime, ip and nft get to see of the caller's environment.
HOST_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}

# Signals are ignored: a Ctrl-C or a stop of the whole group must not take the watcher first.
WATCHER = 'trap "" INT TERM HUP; read -r _; exec "$@"'


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, as a value; ``input`` goes to its stdin.

    ``program`` is the file to execute, where it is not the one that ``args`` begins with.
    """

    args: tuple[str, ...]
    input: bytes = b""
    program: str = ""

    def describe(self) -> str:
        return " ".join(self.args)


@dataclass(frozen=True, slots=True)
class Ended:
    """Exit code, and bytes read from and written to disks, page cache included for writes."""

    exit_code: int
    read_bytes: int
    written_bytes: int


@dataclass(slots=True)
class Started:
    """A running program."""

    process: subprocess.Popen[bytes]
    _ending: threading.Lock = field(default_factory=threading.Lock)

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, timeout: float | None = None) -> int | None:
        """Exit code as a shell would say it (128 + signal), or None after ``timeout`` seconds."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code

    def wait_and_count(self) -> Ended:
        """Wait for the end, and read what it and every process under it have cost.

        A process's counters take in those of each child that was waited for, and stay
        readable until it is waited for itself (proc(5) "/proc/pid/io").
        """
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        try:
            text = Path(f"/proc/{self.pid}/io").read_text()
        except OSError:  # a kernel without CONFIG_TASK_IO_ACCOUNTING
            text = ""
        io = dict(line.split(": ") for line in text.splitlines())
        read, written = (int(io.get(name, 0)) for name in ("read_bytes", "write_bytes"))
        with self._ending:
            return Ended(self.wait() or 0, read, written)

    def kill(self) -> None:
        """By any thread, also when it has just ended.

        Not Popen.kill: that waits for a process that has ended, and its counters were gone.
        """
        with self._ending:
            if self.process.returncode is None:
                os.kill(self.pid, signal.SIGKILL)


def start(command: Command, outlets: Outlets) -> Started:
    """Start ``command`` with an empty stdin, only fds 0-2 open, in a session of its own."""
    stdout, stderr = outlets.writers
    try:
        process = subprocess.Popen(
            command.args,
            executable=command.program or None,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=HOST_ENVIRONMENT,
            cwd="/",
            close_fds=True,
            start_new_session=True,
            umask=0o022,  # for what the OCI runtime makes: a sandbox's users must walk through it
        )
    finally:
        outlets.close_writers()
    return Started(process)


def run(command: Command, *, timeout: float = 30.0) -> str:
    """Run ``command`` to its end and return its stdout. Raises HostError with its own words."""
    try:
        done = subprocess.run(
            command.args,
            input=command.input,
            capture_output=True,
            env=HOST_ENVIRONMENT,
            cwd="/",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise HostError(
            f"The program {command.args[0]} is not installed.",
            hint="Install it from the distribution's packages.",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise HostError(
            f"{command.args[0]} did not end within {timeout:g} s.",
            hint="The machine may be overloaded: try again.",
        ) from error
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise HostError(
            f"{command.args[0]} failed: {words}.",
            hint="`python -m runtime check` tells what is missing.",
        )
    return done.stdout.decode(errors="replace")


class Holder:
    """A child that lives until its pipe is closed: ``cat`` started through ``wrapper``."""

    def __init__(self, wrapper: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            (*wrapper, "cat"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=HOST_ENVIRONMENT,
            cwd="/",
            bufsize=0,
        )

    def __enter__(self) -> int:
        """The child's pid, once the wrapper has done its work (an echo proves that cat runs)."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(b"x")
        if self._process.stdout.read(1) != b"x":
            self.__exit__()
            raise HostError(
                f"{self._process.args!r} could not be started.",
                hint="`python -m runtime check` tells what is missing.",
            )
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


@dataclass(slots=True)
class Watcher:
    """A process that waits for our end. Closing ``pipe`` makes it act at once."""

    process: subprocess.Popen[bytes]
    pipe: int


def start_on_our_death(command: Command, *, holding: int) -> Watcher:
    """Arrange for ``command`` to be run when this process is gone, however it goes.

    A shell holds the read end of a pipe whose only write end is ours; the kernel
    closes ours with us. It and ``command`` have the descriptor ``holding`` open, too.
    """
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(
            ("/bin/sh", "-c", WATCHER, "gantry-watcher", *command.args),
            stdin=read_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=HOST_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            pass_fds=(holding,),
        )
    finally:
        os.close(read_end)
    return Watcher(process, write_end)
