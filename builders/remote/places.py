"""``ADD https://host/team/app.git#v1:docs``: what of ADD's sources is a Git repository. Pure.

The rules are BuildKit's (util/gitutil): an http or https address counts when its path ends in
``.git``, ssh does in both of its spellings; behind ``#`` stand a ref and a folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_SCHEME = re.compile(r"^([a-z0-9]+)://", re.IGNORECASE)
_SCP = re.compile(r"^([A-Za-z0-9_][A-Za-z0-9_.+-]*)@([A-Za-z0-9][A-Za-z0-9.-]*):([^#]+)(?:#(.*))?$")
_REF = re.compile(
    r"(?!.*(?:\.\.|//|@\{|\.lock$))[A-Za-z0-9_+=,!%&@][^\x00-\x20\x7f~^:?*\[\\]*(?<![./])"
)
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_PORTS = {"http": 80, "https": 443, "ssh": 22}


class NoPlace(ValueError):
    """Why this address of a repository is not taken, as a sentence, and what to do."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class GitPlace:
    """A repository (``url`` is what git is told), and what of it is meant.

    ``ref`` is a branch, a tag or a full commit id; empty for the default branch.
    """

    url: str
    scheme: str
    host: str
    port: int
    ref: str = ""
    subdir: str = ""

    @property
    def commit(self) -> str:
        """The full commit id that ``ref`` is, else empty."""
        return self.ref if _SHA.fullmatch(self.ref) else ""


def parse_place(text: str) -> GitPlace | None:
    """The repository that an ADD source names; None when it names none. Raises NoPlace."""
    scp = _SCP.match(text)
    if scp:
        user, host, path, fragment = scp.groups()
        return _place(f"{user}@{host}:{path}", "ssh", host, 22, fragment or "")
    found = _SCHEME.match(text)
    scheme = found.group(1).lower() if found else ""
    url, _, fragment = text.partition("#")
    try:
        path = urlsplit(url).path
    except ValueError:
        raise NoPlace("it is no address", "Write it like https://host/file.") from None
    if scheme in {"http", "https"} and not path.endswith(".git"):
        return None
    if scheme == "git":
        raise NoPlace(
            "git:// tells neither who answers nor hides what is asked",
            "Write https:// or ssh:// instead.",
        )
    if scheme not in _PORTS:
        return None
    return _from_url(url, scheme, fragment)


def _from_url(url: str, scheme: str, fragment: str) -> GitPlace:
    parts = urlsplit(url)
    try:
        port = parts.port or _PORTS[scheme]
    except ValueError:
        raise NoPlace("its port is no number", "Write it like https://host:8443/app.git.") from None
    if not parts.hostname or parts.hostname.startswith("-") or re.search(r"[\s\x00-\x1f]", url):
        raise NoPlace("it names no host", "Write it like https://host/team/app.git.")
    if scheme != "ssh" and "@" in parts.netloc:
        raise NoPlace(
            "a password in an address would stay in the image's history",
            "Pass a token with --secret id=GIT_AUTH_TOKEN,src=FILE.",
        )
    return _place(url, scheme, parts.hostname, port, fragment)


def _place(url: str, scheme: str, host: str, port: int, fragment: str) -> GitPlace:
    ref, _, subdir = fragment.partition(":")
    if ref and not _REF.fullmatch(ref):
        raise NoPlace(f"{ref[:80]!r} is no branch, tag or commit", "Write it like #main or #v1.2.")
    return GitPlace(url, scheme, host, port, ref, subdir)
