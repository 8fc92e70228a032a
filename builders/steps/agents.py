"""An SSH agent shown to one step: it may list keys and have things signed, and nothing else.

What is shown is a socket of our own. Behind it is an agent of the person who builds, or one that
is started for the keys given, and no request but the two that logging in needs gets there: a
step cannot add, remove or lock keys (draft-miller-ssh-agent, section 5).
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from builders.errors import ServiceError, UserError
from builders.memory import memory_folder

DEFAULT = "default"
_BY_COMMAND = "Pass it with --ssh {id}, or --ssh {id}=KEYFILE."
_MOST = 256 * 1024  # bytes of one message, as in OpenSSH
_FAILURE = b"\0\0\0\1\5"
_REQUEST_IDENTITIES, _SIGN_REQUEST = 11, 13
_CONNECTIONS = 16
_SECONDS = 20.0


class AgentRelay:
    """Context manager: while it is open, ``path`` is a socket that leads to the agent ``upstream``.

    ``owner`` (host ids) and ``mode`` say who may connect. Clients that stay are cut off.
    """

    def __init__(
        self, upstream: Path, path: Path, *, owner: tuple[int, int], mode: int = 0o600
    ) -> None:
        self._upstream = upstream
        self._path = path
        self._owner = owner
        self._mode = mode
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        os.chown(self._path, *self._owner)
        self._path.chmod(self._mode)
        self._listener.listen(_CONNECTIONS)
        threading.Thread(target=self._accept, daemon=True, name="ssh-agent").start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            ends = [self._listener, *self._open]
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closed or len(self._open) >= _CONNECTIONS:
                    client.close()
                    continue
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
                agent.connect(str(self._upstream))
                while (request := _message(client)) is not None:
                    client.sendall(_answer(agent, request))
        except OSError:
            pass  # one of them went away: the other sees the end of the connection
        finally:
            with self._lock:
                self._open.discard(client)


def _answer(agent: socket.socket, request: bytes) -> bytes:
    if not request or request[0] not in (_REQUEST_IDENTITIES, _SIGN_REQUEST):
        return _FAILURE
    agent.sendall(struct.pack(">I", len(request)) + request)
    answer = _message(agent)
    return _FAILURE if answer is None else struct.pack(">I", len(answer)) + answer


def _message(end: socket.socket) -> bytes | None:
    """The body of the next message; None at the end of the connection. Raises OSError."""
    head = _exactly(end, 4)
    if head is None:
        return None
    (size,) = struct.unpack(">I", head)
    if size > _MOST:
        raise ConnectionError("too long a message")
    return _exactly(end, size)


def _exactly(end: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = end.recv(size - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


class Agents:
    """Context manager: the agents of one build by their ids, each started when first asked for.

    ``given`` maps an id to the socket of an agent, or to a private key (in OpenSSH's or PEM
    form, without a passphrase) that an agent of ours then holds: it goes there over a pipe,
    never to a disk. Threads may share one. ``hint`` is what to do about an id that is not given,
    which it names as ``{id}``.
    """

    def __init__(self, given: Mapping[str, Path | bytes], *, hint: str = "") -> None:
        self._given = dict(given)
        self._hint = hint or _BY_COMMAND
        self._sockets: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __contains__(self, name: object) -> bool:
        return name in self._given

    def hint(self, name: str) -> str:
        """The next step for whoever asks for an agent that was not given."""
        return self._hint.replace("{id}", name)

    def socket(self, name: str) -> Path:
        """Raises UserError for what is neither a socket nor such a key, KeyError for no such id."""
        what = self._given[name]
        if isinstance(what, Path):
            if not what.is_socket():
                raise _no_agent(name)
            return what
        with self._lock:
            if name not in self._sockets:
                self._sockets[name] = self._stack.enter_context(_agent_for(name, what))
            return self._sockets[name]


@contextmanager
def _agent_for(name: str, key: bytes) -> Iterator[Path]:
    with memory_folder() as folder:
        path = folder / "agent"
        env = {"PATH": os.defpath, "HOME": "/nonexistent", "SSH_AUTH_SOCK": str(path)}
        # It ends with us, however we end: then its standard input does.
        script = 'ssh-agent -D -a "$0" >/dev/null & read -r _; kill $!'
        agent = subprocess.Popen(["sh", "-c", script, path], env=env, stdin=subprocess.PIPE)
        try:
            _wait_for(path)
            _add(key, env, name)
            yield path
        finally:
            agent.communicate()


def _add(key: bytes, env: Mapping[str, str], name: str) -> None:
    added = subprocess.run(
        ["ssh-add", "-q", "-"],
        input=key.rstrip() + b"\n",
        env={**env, "SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force"},
        capture_output=True,
        timeout=_SECONDS,
        check=False,
    )
    if added.returncode != 0:
        raise _no_agent(name)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while not path.is_socket():
        if time.monotonic() > deadline:
            raise ServiceError(
                "ssh-agent did not start.", hint="Is openssh-client installed?", code="build.ssh"
            )
        time.sleep(0.005)


def _no_agent(name: str) -> UserError:
    return UserError(
        f"What is given for the SSH id {name!r} is neither the socket of an agent "
        "nor a private key without a passphrase.",
        hint="Give --ssh ID=FILE such a key, or the socket of an agent that holds it.",
        code="build.ssh",
    )
