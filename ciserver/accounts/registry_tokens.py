"""Tokens for the registry, as the distribution project's token authentication defines them.

The registry trusts our certificate and nothing else. Only workers may push: an image that
no recorded build made cannot get into a repository of ours.
https://distribution.github.io/distribution/spec/auth/jwt/
"""

from __future__ import annotations

import base64
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from django.conf import settings

from ciserver.lib.keys import REGISTRY_CERTIFICATE, REGISTRY_KEY

ISSUER = "gantry"
SERVICE = "gantry-registry"
PULL_AUDIENCE = "gantry-pull"
PULL_USER = "gantry-deploy"
LIFETIME = 300  # seconds
SCOPE = re.compile(r"^repository:(?P<name>[a-z0-9][a-z0-9._/-]*):(?P<actions>[a-z,*]+)\Z")


@dataclass(frozen=True, slots=True)
class Access:
    """The right to do ``actions`` (pull, push) with one repository."""

    repository: str
    actions: tuple[str, ...]

    @property
    def claim(self) -> dict[str, Any]:
        return {"type": "repository", "name": self.repository, "actions": list(self.actions)}


def parse_scopes(scopes: Iterable[str]) -> list[Access]:
    """The accesses that ``scope`` parameters ask for; what is not a repository is left out."""
    found = [SCOPE.match(scope) for text in scopes for scope in text.split()]
    return [Access(match["name"], tuple(match["actions"].split(","))) for match in found if match]


def issue(subject: str, access: Sequence[Access], *, lifetime: int = LIFETIME) -> str:
    """A token that lets ``subject`` do exactly ``access``."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": subject,
        "aud": SERVICE,
        "iat": now,
        "nbf": now - 10,
        "exp": now + lifetime,
        "jti": str(uuid.uuid4()),
        "access": [item.claim for item in access],
    }
    pair = _pair(settings.GANTRY.keys)
    return jwt.encode(claims, pair.key, algorithm="ES256", headers={"x5c": [pair.certificate]})


def pull_password(repository: str, *, lifetime: int = LIFETIME) -> str:
    """A password for PULL_USER that can pull ``repository`` and nothing else, for a short time."""
    now = int(time.time())
    claims = {"aud": PULL_AUDIENCE, "repository": repository, "exp": now + lifetime}
    return jwt.encode(claims, _pair(settings.GANTRY.keys).key, algorithm="ES256")


def repository_of(password: str) -> str | None:
    """The repository that a ``pull_password`` opens, or None when it opens nothing (any more)."""
    key = serialization.load_pem_private_key(_pair(settings.GANTRY.keys).key, None).public_key()
    try:
        claims = jwt.decode(password, key, algorithms=["ES256"], audience=PULL_AUDIENCE)  # type: ignore[arg-type]
    except jwt.InvalidTokenError:
        return None
    return str(claims["repository"])


@dataclass(frozen=True, slots=True)
class _Pair:
    key: bytes
    certificate: str


@cache
def _pair(directory: Path) -> _Pair:
    pem = (directory / REGISTRY_CERTIFICATE).read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    return _Pair((directory / REGISTRY_KEY).read_bytes(), base64.b64encode(der).decode())
