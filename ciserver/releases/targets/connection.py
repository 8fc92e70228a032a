"""One ssh connection, shared by everything that goes on with a host until it is closed.

OpenSSH's own multiplexing (ControlMaster in ssh_config(5)): a command costs one message, not a
key exchange.
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
from ciserver.releases.targets import commands, facts, masters
from ciserver.releases.targets.commands import QUICK, Pulse, Result, still
from ciserver.releases.targets.errors import (
    CommandFailed,
    CommandTimedOut,
    CommandTooLoud,
    HostAway,
    HostKeyChanged,
    TargetError,
)
from ciserver.releases.targets.masters import CHECK_IT, LOST, in_shell
from ciserver.releases.targets.spec import Place

PORTS = range(20000, 32000)  # below those that Linux gives out by itself


class Connection:
    """Implements ``Machine``. Made by ``connect``."""

    def __init__(self, place: Place, folder: Path, master: masters.Reached) -> None:
        self.place, self.folder, self._master = place, folder, master
        self.lock = folder.parent / f"{place.name}.lock"
        self._forwards: dict[str, Path] = {}
        self._made: list[tuple[str, ...]] = []  # what to cancel
        self._guard = threading.Lock()
        self.facts = facts.parse(master.said)
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
        words = self._words(argv, piped=bool(stdin))
        try:
            result = commands.attempt(words, timeout=timeout, stdin=stdin, keep=keep, pulse=pulse)
        except CommandTimedOut:
            raise CommandTimedOut(argv, timeout) from None
        except CommandTooLoud:
            raise CommandTooLoud(argv, commands.MOST) from None
        if result.code == LOST and self._master.session.poll() is not None:
            raise HostAway(f"The connection to {self.place.name} was lost. {CHECK_IT}")
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
        return commands.begin(self._words(argv, piped=False), stdin=stdin, stdout=stdout)

    def transport(self, address: str) -> httpx.AsyncBaseTransport | None:
        return httpx.AsyncHTTPTransport(uds=str(self.forwarded(address)), verify=False)

    def connects(self, address: str, timeout: float) -> bool:
        """ssh ends at once, and badly, when nothing listens; who listens may leave it open, and
        say what it likes."""
        argv = [*self._ssh, "-W", address, self.place.name]
        try:
            return commands.attempt(argv, timeout=min(timeout, 2.0), keep=commands.PIECE).code == 0
        except CommandTimedOut:
            return True

    def free_port(self) -> int:
        """A guess: the engine tells when it was wrong, and it is asked again."""
        return random.choice(PORTS)  # noqa: S311 - nobody gains by knowing it

    def forwarded(self, there: str) -> Path:
        """A Unix socket here that leads to HOST:PORT or to a socket's path there."""
        with self._guard:
            if there not in self._forwards:
                path = self.folder / f"{len(self._forwards)}.sock"
                self._forward("-L", f"{path}:{there}")
                self._forwards[there] = path
            return self._forwards[there]

    def exposed(self, path: Path) -> int:
        """A loopback port of the host that leads to the Unix socket ``path`` here, for as long as
        the connection lasts; to nothing, once nobody listens there any more."""
        return int(self._forward("-R", f"127.0.0.1:0:{path}").out.split()[-1])

    def give_back(self) -> None:
        """Forward nothing any more: who has the connection next begins with nothing. Where ssh does
        not do that, nobody finds it again."""
        try:
            done = all(self._control("cancel", *words).code == 0 for words in self._made)
        except CommandTimedOut:
            done = False
        if not done:
            self._master.socket.unlink(missing_ok=True)

    @property
    def _ssh(self) -> list[str]:
        return masters.client(self._master.socket)

    def _words(self, argv: Sequence[str], *, piped: bool) -> list[str]:
        # sshd gives a command a socket to read from, which cannot be opened as /dev/stdin.
        feed = "cat | " if piped else ""
        return [*self._ssh, "--", self.place.name, in_shell(f"{feed}{shlex.join(argv)}")]

    def _forward(self, *words: str) -> Result:
        done = self._control("forward", *words)
        if done.code != 0:
            raise TargetError(
                f"sshd on {self.place.name} forwards nothing ({done.err.strip()[-200:]})."
                " Allow it there: AllowTcpForwarding yes and AllowStreamLocalForwarding yes."
            )
        self._made.append(words)
        return done

    def _control(self, verb: str, *words: str) -> Result:
        return commands.attempt([*self._ssh, "-O", verb, *words, self.place.name], timeout=QUICK)


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
        with masters.reached(place, parent, folder) as master:
            if not place.host_key:
                _pin(place, known.read_text().strip().partition(" ")[2])
            connection = Connection(place, folder, master)
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
