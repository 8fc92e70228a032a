"""A look at Caddy's configuration that also gives the ETag, which names what was seen.

Caddy sends the ETag as an HTTP trailer (RFC 9112, section 7.1.2), after a body that it need not
hold in memory to hash it. Most clients, httpx among them, drop trailers.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import h11


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    etag: str  # for If-Match; empty if none was sent


def get(path: Path, target: str, *, timeout: float) -> Answer:
    """GET ``target`` from the socket at ``path``. Raises OSError or h11.RemoteProtocolError."""
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(timeout)
        connected.connect(str(path))
        talk = h11.Connection(h11.CLIENT)
        headers = [("Host", "localhost"), ("Connection", "close")]
        request = talk.send(h11.Request(method="GET", target=target, headers=headers))
        connected.sendall((request or b"") + (talk.send(h11.EndOfMessage()) or b""))
        return _read(connected, talk)


def _read(connected: socket.socket, talk: h11.Connection) -> Answer:
    status, body, etag = 0, b"", b""
    while True:
        match talk.next_event():
            case h11.NEED_DATA:
                talk.receive_data(connected.recv(65536))
            case h11.Response(status_code=status, headers=headers):
                etag = dict(headers).get(b"etag", b"")
            case h11.Data(data=data):
                body += bytes(data)
            case h11.EndOfMessage(headers=trailers):
                etag = dict(trailers).get(b"etag", etag)
                return Answer(status, body, etag.decode("ascii"))
