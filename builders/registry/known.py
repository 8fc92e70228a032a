"""What this machine knows of registries: who it is to them, and their mirrors. One JSON file.

It is a superset of docker's config.json, so that file will do as it is:

    {"auths": {"ghcr.io": {"auth": "BASE64 OF USER:PASSWORD"},
               "registry.example.com": {"username": "ci", "password": "..."}},
     "mirrors": {"docker.io": ["mirror.example.com", "10.0.0.5:5000"]},
     "plain_http": ["10.0.0.5:5000"]}
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from builders.errors import UserError
from builders.images.documents import Malformed, as_list, load_object, optional_object, text
from builders.images.reference import DEFAULT_REGISTRY
from builders.registry.auth import Credentials

_MOST = 1 << 20


class BadRegistriesFile(UserError):
    """The file of registries cannot be used."""

    code = "registry.file"


@dataclass(frozen=True, slots=True)
class KnownRegistries:
    """By host (``name[:port]``). A registry's ``mirrors`` are asked before it, in their order."""

    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    plain_http: frozenset[str] = frozenset()

    @classmethod
    def load(cls, path: Path) -> KnownRegistries:
        """Raise BadRegistriesFile, which never holds a part of what the file says."""
        try:
            with path.open("rb") as file:
                shared = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077
                data = file.read(_MOST)
            found = cls._of(load_object(data, "it"))
        except OSError as error:
            raise _bad(path, f"it cannot be read ({error.strerror})") from None
        except Malformed as error:
            raise _bad(path, str(error)) from None
        if found.credentials and shared:
            raise BadRegistriesFile(
                f"The passwords in {path} can be read by other users.", hint=f"chmod 600 {path}"
            )
        return found

    @classmethod
    def _of(cls, document: Mapping[str, Any]) -> KnownRegistries:
        """Raises Malformed."""
        if not document.get("auths") and (
            document.get("credsStore") or document.get("credHelpers")
        ):
            raise Malformed("it leaves passwords to a helper of docker's, which is not asked here")
        auths = optional_object(document.get("auths"), "auths")
        mirrors = optional_object(document.get("mirrors"), "mirrors")
        plain = document.get("plain_http")
        return cls(
            {_host(name): _credentials(name, entry) for name, entry in auths.items() if entry},
            {_host(name): _hosts(given, f"mirrors of {name}") for name, given in mirrors.items()},
            frozenset(_hosts(plain, "plain_http") if plain else ()),
        )

    def speaks_plain(self, host: str) -> bool | None:
        """Whether to speak HTTP without TLS: True where the file says so, else None."""
        return True if host in self.plain_http else None


def _host(name: str) -> str:
    """docker writes ``https://index.docker.io/v1/`` for Docker Hub, and may write addresses."""
    host = urlsplit(name).netloc if "://" in name else name.partition("/")[0]
    return DEFAULT_REGISTRY if host in {"index.docker.io", "registry-1.docker.io"} else host


def _hosts(value: object, what: str) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else as_list(value, what)
    if not all(isinstance(each, str) and each for each in listed):
        raise Malformed(f"its {what} are not host names")
    return tuple(map(_host, listed))


def _credentials(name: str, value: object) -> Credentials:
    entry = optional_object(value, f"entry for {name}")
    user, password = text(entry, "username"), text(entry, "password")
    if not user and (encoded := text(entry, "auth")):
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Malformed(f"the auth of {name} is no base64 of USER:PASSWORD") from None
    if not user or not password:
        raise Malformed(f"its entry for {name} has no user name or no password")
    return Credentials(user, password.rstrip("\0"))


def _bad(path: Path, why: str) -> BadRegistriesFile:
    return BadRegistriesFile(
        f"The registries file {path} cannot be used: {why}.",
        hint="docs/settings.md shows what it may hold; docker's config.json will do.",
    )
