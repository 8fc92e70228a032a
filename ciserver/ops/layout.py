"""The folders of $GANTRY_HOME, the user who owns some of them, and the keys.

Every step may be run again and changes nothing the second time.
"""

from __future__ import annotations

import os
import pwd
import secrets
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ciserver.ops.errors import OpsError
from ciserver.ops.launch import CHECKOUT, SERVICE_USER


@dataclass(frozen=True, slots=True)
class Folder:
    """One folder below $GANTRY_HOME. Owned by root or by the service user; see FOLDERS."""

    name: str
    owner: str
    group: str
    mode: int


FOLDERS = (
    Folder("app", "root", "root", 0o755),  # where the service user's processes see the code
    Folder("db", SERVICE_USER, SERVICE_USER, 0o750),
    Folder("repositories", SERVICE_USER, SERVICE_USER, 0o750),
    Folder("registry", SERVICE_USER, SERVICE_USER, 0o700),
    Folder("redis", SERVICE_USER, SERVICE_USER, 0o700),
    Folder("static", SERVICE_USER, SERVICE_USER, 0o755),
    Folder("spool", SERVICE_USER, SERVICE_USER, 0o700),
    # setgid: what the worker writes as root, the web process may read.
    Folder("logs", "root", SERVICE_USER, 0o2750),
    Folder("logs/service", "root", "root", 0o750),
    # Sticky: the service user makes sockets here and cannot replace root's.
    Folder("run", "root", SERVICE_USER, 0o1770),
    Folder("keys", "root", SERVICE_USER, 0o750),
    Folder("mirrors", "root", "root", 0o700),
    Folder("caddy", "root", "root", 0o700),
    # Sandboxes' own ids walk through these, and can list neither.
    Folder("store", "root", "root", 0o711),
    Folder("sandboxes", "root", "root", 0o711),
)


def make_user(home: Path) -> None:
    """The system user ``gantry``, who has no shell and no password."""
    try:
        pwd.getpwnam(SERVICE_USER)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home"]
        command += ["--home-dir", str(home), "--shell", "/usr/sbin/nologin", SERVICE_USER]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OpsError(
                f"The user {SERVICE_USER} could not be made: {done.stderr.strip()}.",
                next_step=f"Make it by hand: {' '.join(command)}",
            ) from None


def make_folders(home: Path) -> None:
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    for folder in FOLDERS:
        path = home / folder.name
        path.mkdir(exist_ok=True)
        os.chown(path, pwd.getpwnam(folder.owner).pw_uid, pwd.getpwnam(folder.group).pw_gid)
        path.chmod(folder.mode)
    _check_reachable(home)


def make_keys(home: Path) -> None:
    """Django's secret key, and the key that signs registry tokens with its certificate."""
    keys = home / "keys"
    if not (keys / "secret_key").exists():
        _write_key(keys / "secret_key", secrets.token_urlsafe(50).encode())
    if not (keys / "registry.crt").exists():
        private = ec.generate_private_key(ec.SECP256R1())
        _write_key(
            keys / "registry.key",
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        _write_key(keys / "registry.crt", _certificate(private))


def check_code_is_readable() -> None:
    """The folders above the checkout may be closed, the files in it may not."""
    for path in (CHECKOUT, CHECKOUT / "ciserver", CHECKOUT / "manage.py", CHECKOUT / ".venv"):
        if not path.stat().st_mode & 0o004:
            raise OpsError(
                f"{path} cannot be read by the user {SERVICE_USER}, who runs the web process.",
                next_step=f"Type: chmod -R o+rX {CHECKOUT}",
            )


def _check_reachable(home: Path) -> None:
    for parent in home.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise OpsError(
                f"{parent} is closed to the user {SERVICE_USER}, so {home} cannot hold the data.",
                next_step=f"Type: chmod o+x {parent} -- or set GANTRY_HOME to another folder.",
            )


def _write_key(path: Path, data: bytes) -> None:
    """All of it or nothing; root's, readable by the service user's group."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "wb") as file:
        file.write(data)
        os.fchown(file.fileno(), 0, pwd.getpwnam(SERVICE_USER).pw_gid)
        os.fsync(file.fileno())
    part.rename(path)


def _certificate(private: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gantry registry tokens")])
    start = datetime.now(UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365 * 20))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)
