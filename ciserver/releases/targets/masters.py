"""ssh's master processes (ControlMaster in ssh_config(5)): begun, kept for who comes next, ended.

To reach a host takes a key exchange and a login: a third of what a small deployment there takes. So
a connection that is given back is kept for KEPT seconds, longer than from one look at its host to
the next, for whichever process comes. One at a time uses it, who holds the lock of its folder; who
finds it taken makes one of his own, which ends with him. It is made anew once it is OLD, so that
the host's key and ours are checked again, and when its user was killed, with all he had forwarded.

The private key is never on a disk: ssh reads it from a memfd of this process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import select
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from ciserver.lib import ssh
from ciserver.releases.targets import commands, facts
from ciserver.releases.targets.commands import Process
from ciserver.releases.targets.errors import (
    HostAway,
    HostKeyChanged,
    KeyRefused,
    TargetError,
)
from ciserver.releases.targets.mux import LOST, Master, Session
from ciserver.releases.targets.spec import Place

CONNECT = 10  # seconds until a host that does not answer is given up
ALIVE = 5  # seconds between two signs of life; three that stay out end the connection
KEPT, OLD = 90, 300  # seconds unused, and since it was made
SOON = 3.0  # seconds within which a kept one answers, or is none
USED = "used"  # somebody has it, or was killed when he had
SAID = 16 * 1024  # bytes of what ssh said, at most
READY = b"\nthat is all\n"  # the host has told what it is like
CHECK_IT = "See that it runs and is reachable, then check the host and deploy again."
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """``session`` ends when the connection is lost. ``said`` is what ``facts.parse`` reads."""

    master: Master
    session: Process | Session
    said: str


@contextmanager
def reached(place: Place, parent: Path, folder: Path) -> Iterator[Reached]:
    """A master for a block: one that was kept in ``parent``, or one that is made, with ``folder``
    for what it needs meanwhile. Kept again if the block ends well. Where the engine is not known,
    as after whatever went wrong, one is made: nothing is taken from the last time.

    Raises HostAway, KeyRefused, HostKeyChanged.
    """
    spot = parent / _name_of(place)
    with _taken(spot) as ours:
        keep = ours and bool(place.host_key)
        found = _again(place, spot) if keep and place.engine else None
        if found is None:
            if keep:
                end(spot)
            found = _first(place, folder, spot if keep else None)
        try:
            yield found
            if keep:
                (spot / USED).unlink(missing_ok=True)
        finally:
            _close(found.session)


def end_kept(run: Path) -> None:
    """Those that nobody uses."""
    for spot in (run / "ssh").glob("k*"):
        if spot.is_dir():
            with _taken(spot) as ours:
                if ours:
                    end(spot)
                    spot.rmdir()


def end(spot: Path) -> None:
    for socket in spot.glob("m-*"):
        Master(socket).end()
        socket.unlink(missing_ok=True)
    (spot / USED).unlink(missing_ok=True)


def client(master: Master) -> list[str]:
    """A program that is a client of ``master``; it never makes a connection of its own."""
    return ["ssh", "-F", "none", "-S", str(master.path), "-o", "ProxyCommand=false", "-T"]


def in_shell(script: str) -> str:
    return shlex.join(["sh", "-c", f"{facts.PATH}; {script}"])


def _name_of(place: Place) -> str:
    """Another address or key is another connection."""
    content = "\0".join([place.name, place.address, place.host_key, place.public_key])
    return "k" + hashlib.sha256(content.encode()).hexdigest()[:10]


@contextmanager
def _taken(spot: Path) -> Iterator[bool]:
    """Whether nobody else has ``spot``, a folder, for as long as the block lasts."""
    lock = _open(spot)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _open(spot: Path) -> int | None:
    """Its locked descriptor (flock(2)), unless somebody has that."""
    while True:
        spot.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            lock = os.open(spot, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return None
            if os.fstat(lock).st_nlink:  # else it was removed before it was locked
                return lock
            os.close(lock)


def _again(place: Place, spot: Path) -> Reached | None:
    """A session of the master that is kept in ``spot``, if it answers."""
    for socket in spot.glob("m-*"):
        if (spot / USED).exists() or not _is_young(socket):
            break
        (spot / USED).touch()
        master = Master(socket)
        try:
            session = master.begin(_first_words(place), SOON)
        except OSError:
            break
        try:
            told = _told(session, place, SOON)
        except HostAway:
            told = b""
        if told.endswith(READY):
            return Reached(master=master, session=session, said=_text(told))
        _close(session)
    return None


def _is_young(socket: Path) -> bool:
    try:
        return 0 <= time.time() - socket.stat().st_mtime < OLD
    except FileNotFoundError:  # its time was over, this very moment
        return False


def _first(place: Place, folder: Path, spot: Path | None) -> Reached:
    """A new master, which stays in ``spot`` if there is one; else its first session is itself."""
    socket = spot / f"m-{uuid4().hex[:6]}" if spot else folder / "master"
    if spot:
        (spot / USED).touch()
    log = folder / "said"
    with _readable(place.private_key()) as key:
        session = _begun(master_words(place, folder, key, socket, keep=bool(spot)), log)
        try:
            told = _told(session, place, 2 * CONNECT)
            if not told.endswith(READY) and _ended_by_ssh(session):
                raise diagnosis(place, _end_of(log))
        except BaseException:
            _close(session)
            raise
    return Reached(master=Master(socket), session=session, said=_text(told))


def _begun(words: list[str], log: Path) -> Process:
    """It lasts until it is closed, or this thread is killed."""
    with log.open("wb") as said:
        pipe = subprocess.PIPE
        return commands.begin(words, stdin=pipe, stdout=pipe, stderr=said)


def _close(session: Process | Session) -> None:
    with session:  # its pipes are closed, too
        session.kill()


def _told(session: Process | Session, place: Place, seconds: float) -> bytes:
    """What it says up to READY, or up to its end. Raises HostAway."""
    told, deadline = b"", time.monotonic() + seconds
    while session.stdout and not told.endswith(READY) and len(told) < SAID:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([session.stdout], [], [], left)[0]:
            raise HostAway(f"{place.name} did not answer within {seconds:.0f} s. {CHECK_IT}")
        piece = os.read(session.stdout.fileno(), SAID)
        if not piece:
            break
        told += piece
    return told


def _text(told: bytes) -> str:
    return told.removesuffix(READY).decode(errors="replace")


def _ended_by_ssh(session: Process) -> bool:
    """And not by the host's shell, or not at all."""
    with suppress(subprocess.TimeoutExpired):
        return session.wait(CONNECT) == LOST
    return False


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - SAID, 0))
        return file.read(SAID).decode(errors="replace")


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


def master_words(
    place: Place, folder: Path, key: str, socket: Path, *, keep: bool = False
) -> list[str]:
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
        "ControlPersist": KEPT if keep else "no",
    }
    control = ["-M", "-T", "-S", str(socket)]
    where = ["-p", str(address.port), "-l", address.user]
    return [*ssh.command(options), *control, *where, "--", address.host, _first_words(place)]


def _first_words(place: Place) -> str:
    script = facts.script(place.engine)
    return in_shell(f"{script}\necho; echo {READY.decode().strip()}; exec cat")


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
