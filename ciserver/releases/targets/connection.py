"""One ssh connection, shared by everything that goes on with a host until it is closed.

OpenSSH's own multiplexing (ControlMaster in ssh_config(5)): a command costs one message, not a
key exchange. The private key is never on a disk: ssh reads it from a memfd of this process.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import select
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

from ciserver.lib import ssh
from ciserver.lib.ownfolders import own_folder
from ciserver.releases.targets import commands, facts
from ciserver.releases.targets.commands import QUICK, Result
from ciserver.releases.targets.errors import (
    CommandFailed,
    CommandTimedOut,
    CommandTooLoud,
    HostAway,
    HostKeyChanged,
    KeyRefused,
    TargetError,
)
from ciserver.releases.targets.facts import Facts
from ciserver.releases.targets.spec import Place

CONNECT = 10  # seconds until a host that does not answer is given up
ALIVE = 5  # seconds between two signs of life; three that stay out end the connection
LOST = 255  # ssh's own exit code
SAID = 16 * 1024  # bytes of what ssh said, at most
READY = b"\nthat is all\n"  # the host has told what it is like
PORTS = range(20000, 32000)  # below those that Linux gives out by itself
ADDRESS = re.compile(
    r"(?:(?P<user>[a-z_][\w.-]*)@)?(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\])(?::(?P<port>\d+))?"
)


@dataclass(frozen=True, slots=True)
class Address:
    user: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """``[USER@]HOST[:PORT]``. Raises ValueError."""
        match = ADDRESS.fullmatch(text)
        if match is None or match["host"].startswith("-"):
            raise ValueError(f"{text!r} is not [USER@]HOST[:PORT]")
        port = int(match["port"] or 22)
        if not 0 < port < 65536:
            raise ValueError(f"{port} is no port")
        return cls(match["user"] or "root", match["host"].strip("[]"), port)


class Connection:
    """Implements ``Machine``. Made by ``connect``."""

    def __init__(
        self, place: Place, folder: Path, master: subprocess.Popen[bytes], found: Facts
    ) -> None:
        self.place, self.folder, self._master = place, folder, master
        self.lock = folder.parent / f"{place.name}.lock"
        self._forwards: dict[str, Path] = {}
        self._guard = threading.Lock()
        self.facts = found
        if not found.engine and place.engine:  # it was removed since: is there another?
            self.facts = facts.parse(self.run(["sh", "-c", facts.script()], timeout=QUICK).out)

    def attempt(
        self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", keep: int | None = None
    ) -> Result:
        words = self._words(argv, piped=bool(stdin))
        try:
            result = commands.attempt(words, timeout=timeout, stdin=stdin, keep=keep)
        except CommandTimedOut:
            raise CommandTimedOut(argv, timeout) from None
        except CommandTooLoud:
            raise CommandTooLoud(argv, commands.MOST) from None
        if result.code == LOST and self._master.poll() is not None:
            raise HostAway(f"The connection to {self.place.name} was lost. {CHECK_IT}")
        return result

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Result:
        result = self.attempt(argv, timeout=timeout, stdin=stdin)
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
                self._control("forward", "-L", f"{path}:{there}")
                self._forwards[there] = path
            return self._forwards[there]

    def exposed(self, path: Path) -> int:
        """A loopback port of the host that leads to the Unix socket ``path`` here, for as long as
        the connection lasts; to nothing, once nobody listens there any more."""
        return int(self._control("forward", "-R", f"127.0.0.1:0:{path}").out.split()[-1])

    @property
    def _ssh(self) -> list[str]:
        """A client of the master; it never makes a connection of its own."""
        control = str(self.folder / "master")
        return ["ssh", "-F", "none", "-S", control, "-o", "ProxyCommand=false", "-T"]

    def _words(self, argv: Sequence[str], *, piped: bool) -> list[str]:
        # sshd gives a command a socket to read from, which cannot be opened as /dev/stdin.
        feed = "cat | " if piped else ""
        return [*self._ssh, "--", self.place.name, _in_shell(f"{feed}{shlex.join(argv)}")]

    def _control(self, verb: str, *words: str) -> Result:
        done = commands.attempt([*self._ssh, "-O", verb, *words, self.place.name], timeout=QUICK)
        if done.code != 0:
            raise TargetError(
                f"sshd on {self.place.name} forwards nothing ({done.err.strip()[-200:]})."
                " Allow it there: AllowTcpForwarding yes and AllowStreamLocalForwarding yes."
            )
        return done


CHECK_IT = "See that it runs and is reachable, then check the host and deploy again."


@contextmanager
def connect(place: Place, run: Path) -> Iterator[Connection]:
    """A connection that lasts as long as the block, or until this thread is killed.

    Raises HostAway, KeyRefused, HostKeyChanged, TargetError.
    """
    parent = run / "ssh"
    parent.mkdir(mode=0o700, exist_ok=True)
    with own_folder(parent, "") as folder, _readable(place.private_key()) as key:
        known = folder / "known_hosts"
        known.write_text(f"gantry {place.host_key}\n" if place.host_key else "")
        with _master(place, folder, key) as (master, said):
            if not place.host_key:
                _pin(place, known.read_text().strip().partition(" ")[2])
            yield Connection(place, folder, master, facts.parse(said))


@contextmanager
def _readable(key: str) -> Iterator[str]:
    """A path to read ``key`` at, which is in the memory of this process alone."""
    memory = os.memfd_create("key")
    try:
        os.fchmod(memory, 0o600)
        os.write(memory, key.encode())
        yield f"/proc/{os.getpid()}/fd/{memory}"
    finally:
        os.close(memory)


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


@contextmanager
def _master(place: Place, folder: Path, key: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """ssh and what the host says it is like: its first session tells that, and then waits."""
    said = folder / "said"
    with said.open("wb") as log:
        process = commands.begin(
            master_words(place, folder, key),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    with process:  # its pipes are closed, too
        try:
            told = _told(process, place)
            if not told.endswith(READY) and _ended_by_ssh(process):
                raise diagnosis(place, _end_of(said))
            yield process, told.removesuffix(READY).decode(errors="replace")
        finally:
            process.kill()


def _told(process: subprocess.Popen[bytes], place: Place) -> bytes:
    """What the first session says up to READY, or up to its end. Raises HostAway."""
    told, deadline = b"", time.monotonic() + 2 * CONNECT
    while process.stdout and not told.endswith(READY) and len(told) < SAID:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([process.stdout], [], [], left)[0]:
            raise HostAway(f"{place.name} did not answer within {2 * CONNECT} s. {CHECK_IT}")
        piece = os.read(process.stdout.fileno(), SAID)
        if not piece:
            break
        told += piece
    return told


def _ended_by_ssh(process: subprocess.Popen[bytes]) -> bool:
    """And not by the host's shell, or not at all."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(CONNECT) == LOST
    return False


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - SAID, 0))
        return file.read(SAID).decode(errors="replace")


def master_words(place: Place, folder: Path, key: str) -> list[str]:
    """ssh's command line. Its known_hosts has one entry or, the first time, none."""
    address = Address.parse(place.address)
    options = {
        "IdentityFile": key,
        "ConnectTimeout": CONNECT,
        # A banner is the host's own text, as long as it likes: none of ours to show or to believe.
        "LogLevel": "ERROR",
        "ServerAliveInterval": ALIVE,
        "StrictHostKeyChecking": "yes" if place.host_key else "accept-new",
        "HostKeyAlias": "gantry",
        "HostKeyAlgorithms": algorithms(place.host_key),
        "UserKnownHostsFile": folder / "known_hosts",
        "Compression": "no",  # layers are compressed
        "StreamLocalBindUnlink": "yes",
    }
    control = ["-M", "-T", "-S", str(folder / "master")]
    where = ["-p", str(address.port), "-l", address.user]
    first = _in_shell(
        f"{facts.script(place.engine)}\necho; echo {READY.decode().strip()}; exec cat"
    )
    return [*ssh.command(options), *control, *where, "--", address.host, first]


def _in_shell(script: str) -> str:
    return shlex.join(["sh", "-c", f"{facts.PATH}; {script}"])


def algorithms(host_key: str) -> str:
    """Only the kind that was pinned: another key of the same host is as unknown as a stranger's."""
    kind = host_key.partition(" ")[0]
    if kind == "ssh-rsa":
        return "rsa-sha2-512,rsa-sha2-256"
    return kind or "ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512,rsa-sha2-256"


def diagnosis(place: Place, said: str) -> TargetError:
    """What ssh's last words mean for who must act."""
    if "HOST IDENTIFICATION HAS CHANGED" in said or "no matching host key" in said:
        found = re.search(r"SHA256:[A-Za-z0-9+/]+", said)
        return HostKeyChanged(place.name, found[0] if found else "")
    if "Permission denied" in said or "Too many authentication failures" in said:
        user = Address.parse(place.address).user
        return KeyRefused(
            f"{place.name} does not let {user} in with our key. Add this line there to"
            f" ~{user}/.ssh/authorized_keys: {place.public_key}"
        )
    words = said.strip().splitlines()[-1:] or ["it closed the connection"]
    return HostAway(f"{place.name} cannot be reached: {words[0].strip()}. {CHECK_IT}")
