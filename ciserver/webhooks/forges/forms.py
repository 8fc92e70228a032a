"""The JSON in a body that is a form (application/x-www-form-urlencoded).

Gitea signs what is inside, so strangers' bodies are read, too: never by ``urllib``, which makes an
object of every ``%41`` and two gigabytes of what a webhook may bring.
"""

from __future__ import annotations

import binascii

KIND = "application/x-www-form-urlencoded"


def is_form(content_type: str) -> bool:
    return content_type.lower().startswith(KIND)


def field(name: str, body: bytes) -> bytes:
    """The first field of that name, decoded; empty when there is none."""
    key = f"{name}=".encode()
    start = 0 if body.startswith(key) else body.find(b"&" + key) + 1
    if not body.startswith(key, start):
        return b""
    end = body.find(b"&", start)
    value = body[start + len(key) : end if end >= 0 else len(body)]
    return _decoded(value)


def _decoded(value: bytes) -> bytes:
    # Quoted-printable (RFC 2045, 6.7) writes '=41' for '%41' and is undone without an object for
    # each. Its own signs are written so that they mean themselves.
    value = value.replace(b"+", b" ").replace(b"=", b"=3D")
    return binascii.a2b_qp(value.replace(b"%", b"="))
