"""Names of images: ``[registry/]repository[:tag][@digest]``, as docker reads them.

The grammar is that of distribution/reference, which the OCI distribution-spec
("Pulling manifests") repeats for repositories and tags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from builders.errors import UserError
from builders.images.digests import DIGEST_PATTERN

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?")
_LONGEST_REPOSITORY = 255


class BadReference(UserError):
    """The text is no name of an image."""

    code = "image.reference"


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's name. At least one of ``tag`` and ``digest`` is set.

    ``platform`` (``linux/arm64``) says which image of that name, where it is not this machine's.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None
    platform: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a name; what it leaves out is docker.io, ``library/`` and ``latest``.

        Raises BadReference.
        """
        rest, at, digest = text.partition("@")
        if at and not DIGEST_PATTERN.fullmatch(digest):
            raise _bad(text, f"{digest!r} is no sha256 digest")
        registry, rest = _split_registry(rest)
        repository, colon, tag = rest.partition(":")
        if colon and not _TAG.fullmatch(tag):
            raise _bad(text, f"{tag!r} is no tag")
        if not _REPOSITORY.fullmatch(repository) or len(repository) > _LONGEST_REPOSITORY:
            reason = "repository names are lower case" if repository.lower() != repository else ""
            raise _bad(text, reason or f"{repository!r} is no repository name")
        if not _is_registry(registry):
            raise _bad(text, f"{registry!r} is no registry")
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = f"library/{repository}"
        return cls(registry, repository, tag or (None if digest else DEFAULT_TAG), digest or None)

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """The short form people type: ``debian:bookworm``."""
        text = str(self)
        if self.registry == DEFAULT_REGISTRY:
            text = text.removeprefix(f"{DEFAULT_REGISTRY}/").removeprefix("library/")
        return text

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest where there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def with_digest(self, digest: str) -> Reference:
        """The same repository at exactly ``digest``."""
        return replace(self, tag=None, digest=digest)

    def with_tag(self, tag: str) -> Reference:
        """The same repository at ``tag``. Raises BadReference."""
        if not _TAG.fullmatch(tag):
            raise _bad(tag, "it is no tag")
        return replace(self, tag=tag, digest=None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def _is_registry(text: str) -> bool:
    if not _REGISTRY.fullmatch(text):
        return False
    try:
        port = urlsplit(f"//{text}").port  # also refuses brackets around what is no address
    except ValueError:
        return False
    return port is None or port > 0


def _split_registry(text: str) -> tuple[str, str]:
    """The part before the first slash is a registry if it has a dot, a port or is localhost."""
    first, slash, rest = text.partition("/")
    is_registry = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_registry:
        return DEFAULT_REGISTRY, text
    if first in {"index.docker.io", "registry-1.docker.io"}:
        first = DEFAULT_REGISTRY
    return first, rest


def _bad(text: str, reason: str) -> BadReference:
    return BadReference(
        f"{text[:100]!r} is not the name of an image: {reason[:200]}.",
        hint="Names look like debian:bookworm or registry.example.com:5000/team/app:v1.",
    )
