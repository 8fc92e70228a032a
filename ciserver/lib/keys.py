"""The installation's own keys, made once: Django's, the key ring's, the registry's.

Knows no Django settings, because those need the first of these keys.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SECRET_KEY = "secret_key"  # noqa: S105 - a file's name
KEYRING = "keyring"
REGISTRY_KEY = "registry.key"
REGISTRY_CERTIFICATE = "registry.crt"


def ensure_keys(directory: Path) -> None:
    """Make whatever key ``directory`` lacks, readable by the owner alone. Never replaces one."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _create(directory / SECRET_KEY, lambda: secrets.token_urlsafe(64).encode())
    _create(directory / KEYRING, lambda: b"1:" + base64.b64encode(os.urandom(32)) + b"\n")
    if not (directory / REGISTRY_CERTIFICATE).exists():
        key, certificate = _registry_pair()
        (directory / REGISTRY_KEY).unlink(missing_ok=True)
        _create(directory / REGISTRY_KEY, lambda: key)
        _create(directory / REGISTRY_CERTIFICATE, lambda: certificate)


def _create(path: Path, make: Callable[[], bytes]) -> None:
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(make())
        file.flush()
        os.fsync(fd)
    try:
        os.link(temporary, path)  # unlike a rename, this never replaces another start's key
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _registry_pair() -> tuple[bytes, bytes]:
    """An ES256 key and its self-signed certificate, which the registry trusts as root."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gantry registry tokens")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )
