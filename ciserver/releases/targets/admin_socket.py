"""Requests to Caddy's admin API, whose answers also give the ETag, which names what was seen.

Caddy sends the ETag as an HTTP trailer (RFC 9112, section 7.1.2), after a body that it need not
hold in memory to hash it. Most clients, httpx among them, drop trailers. On another machine it may
be anybody who answers: neither the length of an answer nor the time that it takes is theirs to say.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path

import h11

MOST = 8 * 1024 * 1024  # bytes of an answer; an environment takes about one thousand
PIECE = 65536


class TooMuch(OSError):
    """An answer is longer than any that Caddy gives."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    etag: str  # for If-Match; empty if none was sent


def ask(
    path: Path,
    method: str,
    target: str,
    *,
    timeout: float,
    body: bytes | None = None,
    if_match: str = "",
) -> Answer:
    """``method`` on ``target``, with the JSON ``body``, of whoever listens at the socket ``path``.
    Over in ``timeout`` seconds. Raises OSError or h11.RemoteProtocolError."""
    deadline = time.monotonic() + timeout
    # Caddy refuses names that are not among its admin "origins".
    headers = [("Host", "localhost"), ("Connection", "close")]
    if if_match:
        headers.append(("If-Match", if_match))
    if body is not None:
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(timeout)
        connected.connect(str(path))
        talk = h11.Connection(h11.CLIENT)
        sent = talk.send(h11.Request(method=method, target=target, headers=headers)) or b""
        if body is not None:
            sent += talk.send(h11.Data(data=body)) or b""
        connected.sendall(sent + (talk.send(h11.EndOfMessage()) or b""))
        return _read(connected, talk, deadline)


def _read(connected: socket.socket, talk: h11.Connection, deadline: float) -> Answer:
    status, pieces, size, etag = 0, [], 0, b""
    while True:
        match talk.next_event():
            case h11.NEED_DATA:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("its answer has no end")
                connected.settimeout(left)
                talk.receive_data(connected.recv(PIECE))
            case h11.Response(status_code=status, headers=headers):
                etag = dict(headers).get(b"etag", b"")
            case h11.Data(data=data):
                pieces.append(bytes(data))
                size += len(data)
                if size > MOST:
                    raise TooMuch(f"its answer is longer than {MOST >> 20} MiB")
            case h11.EndOfMessage(headers=trailers):
                etag = dict(trailers).get(b"etag", etag)
                return Answer(status, b"".join(pieces), etag.decode("ascii", errors="replace"))
            case h11.ConnectionClosed() | h11.PAUSED:
                raise ConnectionError("it hung up")
