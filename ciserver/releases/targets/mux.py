"""A client of ssh's master process (ControlMaster in ssh_config(5)) within this process.

To start ``ssh`` for each command takes 5 ms of a core, thirty times what its messages do, and hosts
that are deployed to side by side share that of one worker.

https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.mux; where that says otherwise,
mux.c beside it: the port of MUX_C_NEW_STDIO_FWD is a number.
"""

from __future__ import annotations

import io
import math
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from ciserver.releases.targets.commands import QUICK

VERSION = 4
HELLO = 0x00000001
NEW_SESSION, TERMINATE = 0x10000002, 0x10000005
OPEN_FORWARD, CLOSE_FORWARD, NEW_STDIO_FORWARD = 0x10000006, 0x10000007, 0x10000008
DENIED, FAILURE, EXIT = 0x80000002, 0x80000003, 0x80000004
SESSION_OPENED, REMOTE_PORT = 0x80000006, 0x80000007
LOCAL, REMOTE = 1, 2  # kinds of forwardings
PATH = 0xFFFFFFFE  # a "port" that makes its "host" the path of a Unix socket
NO_ESCAPE = 0xFFFFFFFF
LONGEST = 64 * 1024  # bytes of a message from the master
LOST = 255  # ssh's own exit code

Place = tuple[str, int]  # a host and a port, or a path and PATH


class Declined(Exception):
    """The master, or the host's sshd, does not do it. The message says why."""


class Session:
    """A command at the other end; see ``commands.Running``."""

    def __init__(self, control: socket.socket, ends: Sequence[int]) -> None:
        self._control, self._said = control, b""
        self._code: int | None = None
        self.refused = ""  # why it was not begun
        self.stdin: IO[bytes] = io.FileIO(ends[0], "w")
        self.stdout: IO[bytes] = io.FileIO(ends[1])
        self.stderr: IO[bytes] = io.FileIO(ends[2])

    def poll(self) -> int | None:
        """Its exit code, once it has ended; LOST if that is not known."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises TimeoutExpired."""
        until = None if timeout is None else time.monotonic() + timeout
        while self._code is None:
            left = None if until is None else max(until - time.monotonic(), 0)
            self._listen(left)
        return self._code

    def ask_to_end(self) -> None:
        """It finds its streams closed; to send it a signal is not in the protocol."""
        self.kill()

    def kill(self) -> None:
        self._code = LOST if self._code is None else self._code
        self._control.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self.stdin, self.stdout, self.stderr):
            with suppress(OSError):
                pipe.close()

    def _listen(self, seconds: float | None) -> None:
        """Take what the master says next, within ``seconds``."""
        self._control.settimeout(seconds)  # 0 is not to wait, None to wait for ever
        try:
            piece = self._control.recv(LONGEST)
        except (BlockingIOError, TimeoutError):
            raise subprocess.TimeoutExpired("ssh", seconds or 0) from None
        except OSError:
            piece = b""
        self._said += piece
        while (message := _first(self._said)) is not None:
            self._said = self._said[4 + len(message) :]
            kind, _, *more = struct.unpack_from(f">{min(len(message) // 4, 3)}I", message)
            if kind == EXIT:
                self._code = more[0]
            elif kind in {DENIED, FAILURE}:
                self.refused, self._code = _text(message[8:]), LOST
        if not piece or len(self._said) > LONGEST:
            self._code = LOST if self._code is None else self._code
        if self._code is not None:
            self._control.close()


class Master:
    """The master that listens at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, command: str, timeout: float) -> Session:
        """Have the user's shell on the host run ``command``. What comes of it, also that it could
        not begin, is told by the session. Raises OSError when there is no master, or none that
        takes it within ``timeout`` seconds."""
        with ExitStack() as undo, ExitStack() as theirs:
            control = undo.enter_context(self._connected(timeout))
            ours, given = [], []
            for number in range(3):
                reads, writes = os.pipe()
                mine, other = (reads, writes) if number else (writes, reads)
                undo.callback(os.close, mine)
                theirs.callback(os.close, other)
                ours.append(mine)
                given.append(other)
            flags = struct.pack(">5I", 0, 0, 0, 0, NO_ESCAPE)  # no terminal, X11, agent, subsystem
            _send(control, NEW_SESSION, _string("") + flags + _string("") + _string(command))
            for end in given:
                socket.send_fds(control, [b"\0"], [end])
            undo.pop_all()
            return Session(control, ours)

    def forward(self, kind: int, listen: Place, connect: Place) -> int:
        """The port that was chosen, where ``listen`` left that open with 0; else 0. Raises
        Declined, OSError."""
        answer = self._asked(OPEN_FORWARD, _forwarding(kind, listen, connect))
        kind_of_answer, _, *more = struct.unpack_from(f">{min(len(answer) // 4, 3)}I", answer)
        return more[0] if kind_of_answer == REMOTE_PORT else 0

    def cancel(self, kind: int, listen: Place, connect: Place) -> None:
        """Raises Declined, OSError."""
        self._asked(CLOSE_FORWARD, _forwarding(kind, listen, connect))

    def connects(self, host: str, port: int, timeout: float) -> bool:
        """Whether something listens there, as seen from the host. One that takes its time may.
        Raises OSError."""
        with self._connected() as control, _null() as null:
            _send(control, NEW_STDIO_FORWARD, _string("") + _string(host) + struct.pack(">I", port))
            for _ in range(2):
                socket.send_fds(control, [b"\0"], [null])
            control.settimeout(timeout)
            try:
                _receive(control)
            except Declined:
                return False
            except TimeoutError:
                return True
            return True

    def end(self) -> None:
        """It and all that goes through it."""
        with suppress(OSError, Declined):  # it may be gone before it has answered
            self._asked(TERMINATE, b"")

    def _asked(self, kind: int, body: bytes) -> bytes:
        with self._connected() as control:
            _send(control, kind, body)
            return _receive(control)

    def _connected(self, timeout: float = math.inf) -> socket.socket:
        control = socket.socket(socket.AF_UNIX)
        try:
            control.settimeout(min(timeout, QUICK))
            control.connect(str(self.path))
            hello = struct.pack(">2I", HELLO, VERSION)
            control.sendall(_string(hello))
            if (told := _receive(control)[:8]) != hello:
                raise ConnectionError(f"{self.path} speaks another protocol: {told!r}")
        except BaseException:
            control.close()
            raise
        return control


@contextmanager
def _null() -> Iterator[int]:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        yield null
    finally:
        os.close(null)


def _forwarding(kind: int, listen: Place, connect: Place) -> bytes:
    words = [struct.pack(">I", kind)]
    for host, port in (listen, connect):
        words += [_string(host), struct.pack(">I", port)]
    return b"".join(words)


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(">I", len(data)) + data


def _text(data: bytes) -> str:
    """The string that ``data`` begins with."""
    return data[4 : 4 + int.from_bytes(data[:4])].decode(errors="replace")


def _send(control: socket.socket, kind: int, body: bytes) -> None:
    """A connection carries one request: its number is 0."""
    control.sendall(_string(struct.pack(">2I", kind, 0) + body))


def _first(said: bytes) -> bytes | None:
    """The first message of ``said``, if it is whole."""
    size = int.from_bytes(said[:4])
    return said[4 : 4 + size] if len(said) >= max(4 + size, 12) else None


def _receive(control: socket.socket) -> bytes:
    """The next message, from its type on. Raises Declined, and OSError if the master goes away."""
    said = b""
    while (message := _first(said)) is None:
        piece = control.recv(LONGEST)
        if not piece or len(said) > LONGEST:
            raise ConnectionResetError("ssh's master ended")
        said += piece
    if int.from_bytes(message[:4]) in {DENIED, FAILURE}:
        raise Declined(_text(message[8:]))
    return message
