"""One ssh connection, shared by everything that goes on with a host until it is closed.

OpenSSH's own multiplexing (ControlMaster in ssh_config(5)): a command costs one message (see
``mux``), not a key exchange. Only what has streams of the caller's is an ``ssh`` of its own.
"""

from __future__ import annotations

import base64
import hashlib
import random
import shlex
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from ciserver.lib.ownfolders import own_folder
from ciserver.releases.targets import commands, facts, masters, mux
from ciserver.releases.targets.commands import QUICK, Pulse, Result, still
from ciserver.releases.targets.errors import (
    CommandFailed,
    CommandTimedOut,
    HostAway,
    HostKeyChanged,
    TargetError,
)
from ciserver.releases.targets.masters import CHECK_IT, in_shell
from ciserver.releases.targets.mux import LOCAL, LOST, PATH, REMOTE, Declined, Session
from ciserver.releases.targets.spec import Place

ENDS_WITHIN = 0.5  # seconds after the first of its sessions, if a connection is lost
PORTS = range(20000, 32000)  # below those that Linux gives out by itself


class Connection:
    """Implements ``Machine``. Made by ``connect``."""

    def __init__(self, place: Place, folder: Path, reached: masters.Reached) -> None:
        self.place, self.folder, self._reached = place, folder, reached
        self.lock = folder.parent / f"{place.name}.lock"
        self._forwards: dict[str, Path] = {}
        self._made: list[tuple[int, mux.Place, mux.Place]] = []  # what to cancel
        self._guard = threading.Lock()
        self.facts = facts.parse(reached.said)
        if not self.facts.engine and place.engine:  # it was removed since: is there another?
            self.facts = facts.parse(self.run(["sh", "-c", facts.script()], timeout=QUICK).out)

    def attempt(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        stdin: bytes = b"",
        keep: int | None = None,
        pulse: Pulse = still,
    ) -> Result:
        # sshd gives a command a socket to read from, which cannot be opened as /dev/stdin.
        script = in_shell(("cat | " if stdin else "") + shlex.join(argv))
        begun: list[Session] = []

        def start() -> Session:
            try:
                begun.append(self._reached.master.begin(script, timeout))
            except OSError as error:
                if isinstance(error, TimeoutError) and timeout < QUICK:
                    raise CommandTimedOut(argv, timeout) from error
                raise self._lost() from error
            return begun[0]

        result = commands.finish(start, argv, timeout=timeout, stdin=stdin, keep=keep, pulse=pulse)
        if begun[0].refused:
            raise HostAway(f"sshd on {self.place.name}: {begun[0].refused}. {CHECK_IT}")
        if result.code == LOST and self._is_over():
            raise self._lost()
        return result

    def run(
        self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", pulse: Pulse = still
    ) -> Result:
        result = self.attempt(argv, timeout=timeout, stdin=stdin, pulse=pulse)
        if result.code != 0:
            raise CommandFailed(argv, result.code, result.err or result.out)
        return result

    def stream(
        self, argv: Sequence[str], *, stdin: IO[bytes] | int, stdout: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        client = masters.client(self._reached.master)
        words = [*client, "--", self.place.name, in_shell(shlex.join(argv))]
        return commands.begin(words, stdin=stdin, stdout=stdout)

    def transport(self, address: str) -> httpx.AsyncBaseTransport | None:
        return httpx.AsyncHTTPTransport(uds=str(self.forwarded(address)), verify=False)

    def connects(self, address: str, timeout: float) -> bool:
        host, _, port = address.rpartition(":")
        try:
            return self._reached.master.connects(host, int(port), min(timeout, 2.0))
        except OSError as error:
            raise self._lost() from error

    def free_port(self) -> int:
        """A guess: the engine tells when it was wrong, and it is asked again."""
        return random.choice(PORTS)  # noqa: S311 - nobody gains by knowing it

    def forwarded(self, there: str) -> Path:
        """A Unix socket here that leads to HOST:PORT or to a socket's path there."""
        with self._guard:
            if there not in self._forwards:
                path = self.folder / f"{len(self._forwards)}.sock"
                self._forward(LOCAL, (str(path), PATH), _place(there))
                self._forwards[there] = path
            return self._forwards[there]

    def exposed(self, path: Path) -> int:
        """A loopback port of the host that leads to the Unix socket ``path`` here, for as long as
        the connection lasts; to nothing, once nobody listens there any more."""
        return self._forward(REMOTE, ("127.0.0.1", 0), (str(path), PATH))

    def give_back(self) -> None:
        """Forward nothing any more: who has the connection next begins with nothing. Where ssh does
        not do that, nobody finds it again."""
        master = self._reached.master
        try:
            for forwarding in self._made:
                master.cancel(*forwarding)
        except (OSError, Declined):
            master.path.unlink(missing_ok=True)

    def _forward(self, kind: int, listen: mux.Place, connect: mux.Place) -> int:
        """The port of ``listen``, if that left it open."""
        try:
            port = self._reached.master.forward(kind, listen, connect)
        except OSError as error:
            # It may be made yet: then nobody finds this connection again.
            self._reached.master.path.unlink(missing_ok=True)
            raise self._lost() from error
        except Declined as error:
            raise TargetError(
                f"sshd on {self.place.name} forwards nothing ({error})."
                " Allow it there: AllowTcpForwarding yes and AllowStreamLocalForwarding yes."
            ) from error
        self._made.append((kind, listen, connect))
        return port

    def _is_over(self) -> bool:
        """Whether the connection is. A command that is ended by a signal has no exit code either;
        then this takes a moment."""
        try:
            self._reached.session.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _lost(self) -> HostAway:
        return HostAway(f"The connection to {self.place.name} was lost. {CHECK_IT}")


def _place(text: str) -> mux.Place:
    """Of HOST:PORT, or of a socket's path."""
    if text.startswith("/"):
        return text, PATH
    host, _, port = text.rpartition(":")
    return host, int(port)


@contextmanager
def connect(place: Place, run: Path) -> Iterator[Connection]:
    """A connection for as long as the block, or until this thread is killed.

    Raises HostAway, KeyRefused, HostKeyChanged, TargetError.
    """
    parent = run / "ssh"
    parent.mkdir(mode=0o700, exist_ok=True)
    with own_folder(parent, "") as folder:
        known = folder / "known_hosts"
        known.write_text(f"gantry {place.host_key}\n" if place.host_key else "")
        with masters.reached(place, parent, folder) as reached:
            if not place.host_key:
                _pin(place, known.read_text().strip().partition(" ")[2])
            connection = Connection(place, folder, reached)
            yield connection
            connection.give_back()


def _pin(place: Place, key: str) -> None:
    offered = fingerprint(key)
    if place.expected and offered != place.expected:
        raise HostKeyChanged(place.name, offered)
    place.pin(key)


def fingerprint(key: str) -> str:
    """``SHA256:...`` of a public key's line, as ``ssh-keygen -l`` prints it; empty for none."""
    if not key:
        return ""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
