"""How Gantry gets into a private repository elsewhere: a key of its own, or a login."""

from __future__ import annotations

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from django.db import models

from ciserver.lib.crypto import Secret, seal, unseal
from ciserver.projects.models import Project


class Access(models.Model):
    """Of one project. The private key and the password are write-only.

    ``host_keys`` are lines of known_hosts (sshd(8)): pinned by the first fetch, and compared by
    every later one.
    """

    SEALED = {"key_sealed": "key_place", "password_sealed": "password_place"}

    project = models.OneToOneField(Project, models.CASCADE, related_name="access")
    public_key = models.CharField(max_length=300, blank=True)
    key_sealed = models.TextField(blank=True)
    username = models.CharField(max_length=150, blank=True)
    password_sealed = models.TextField(blank=True)
    host_keys = models.TextField(blank=True)
    host_keys_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "accesses"

    def __str__(self) -> str:
        return f"access to the repository of {self.project}"

    @property
    def key_place(self) -> str:
        return f"repositories_access:{self.project_id}:key"

    @property
    def password_place(self) -> str:
        return f"repositories_access:{self.project_id}:password"

    @property
    def key(self) -> Secret | None:
        """The private key as ssh reads it. Raises SealBroken."""
        return unseal(self.key_sealed, self.key_place) if self.key_sealed else None

    @property
    def password(self) -> Secret | None:
        """Raises SealBroken."""
        return unseal(self.password_sealed, self.password_place) if self.password_sealed else None

    def renew_key(self) -> None:
        """A new Ed25519 pair (RFC 8709), not saved."""
        pair = Ed25519PrivateKey.generate()
        private = pair.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        public = pair.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        self.key_sealed = seal(Secret(private.decode()), self.key_place)
        self.public_key = f"{public.decode()} gantry-{self.project.slug}"

    @property
    def fingerprints(self) -> list[str]:
        """Of the pinned host keys, as ``ssh-keygen -l`` writes them."""
        found = []
        for line in self.host_keys.splitlines():
            words = line.split()
            if len(words) >= 3:
                digest = hashlib.sha256(base64.b64decode(words[2])).digest()
                told = base64.b64encode(digest).decode().rstrip("=")
                found.append(f"{words[1]} SHA256:{told}")
        return found

    def put_password(self, password: Secret) -> None:
        self.password_sealed = seal(password, self.password_place)
