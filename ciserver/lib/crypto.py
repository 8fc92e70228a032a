"""Secrets at rest: AES-256-GCM, bound to the row and column that hold them.

The key ring is ``keys/keyring``: a line ``ID:BASE64`` per key, the last one seals.
A ciphertext moved to another row or column does not open (its place is the
additional data), which is why this is not Fernet.
"""

from __future__ import annotations

import base64
import os
from functools import cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

NONCE_BYTES = 12
KEY_BYTES = 32


class SealBroken(Exception):
    """A ciphertext does not open: wrong key ring, wrong place, or it was changed."""


class Secret:
    """A value that cannot print itself. ``reveal()`` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise TypeError("compare secrets with hmac.compare_digest")

    __hash__ = None  # type: ignore[assignment]


def seal(secret: Secret, place: str) -> str:
    """``secret`` as text ``ID:BASE64`` that opens only for the same ``place``."""
    key_id, key = list(_keyring(settings.GANTRY.keys / "keyring").items())[-1]
    nonce = os.urandom(NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, secret.reveal().encode(), place.encode())
    return f"{key_id}:{base64.b64encode(nonce + sealed).decode()}"


def unseal(text: str, place: str) -> Secret:
    """The secret sealed for ``place``. Raises SealBroken."""
    key_id, _, payload = text.partition(":")
    key = _keyring(settings.GANTRY.keys / "keyring").get(key_id)
    if key is None:
        _keyring.cache_clear()  # another process may have added it
        key = _keyring(settings.GANTRY.keys / "keyring").get(key_id)
    if key is None:
        raise SealBroken(f"{place} is sealed with key {key_id!r}, which is not in the key ring.")
    raw = base64.b64decode(payload)
    try:
        plain = AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], place.encode())
    except InvalidTag:
        raise SealBroken(f"{place} does not open with key {key_id!r}.") from None
    return Secret(plain.decode())


def add_key() -> str:
    """A new key at the end of the ring, which seals from now on; its id. Old ones still open.

    Processes that run find it as soon as they meet what it sealed.
    """
    path = settings.GANTRY.keys / "keyring"
    new_id = str(max(int(key_id) for key_id in _keyring(path)) + 1)
    text = path.read_text()
    line = f"{new_id}:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}\n"
    before = path.stat()
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text if text.endswith("\n") else text + "\n")
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    os.chown(part, before.st_uid, before.st_gid)
    part.chmod(before.st_mode & 0o777)
    part.replace(path)
    _keyring.cache_clear()
    return new_id


@cache
def _keyring(path: Path) -> dict[str, bytes]:
    keys = {}
    for line in path.read_text().splitlines():
        key_id, _, encoded = line.partition(":")
        keys[key_id] = base64.b64decode(encoded)
    return keys
