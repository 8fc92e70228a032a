"""Shas, refs and paths as outsiders write them: checked before they come near a command line.

``check_ref`` follows git-check-ref-format(1), and refuses a leading ``-`` besides.
"""

from __future__ import annotations

import re

from ciserver.repositories.errors import BadName

SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
MAX_REF = 300
MAX_PATH = 4096


def is_sha(text: str) -> bool:
    return SHA.fullmatch(text) is not None


def is_null(sha: str) -> bool:
    """The all-zero sha by which Git says 'nothing'."""
    return not sha.strip("0")


def check_sha(text: str) -> str:
    if not is_sha(text):
        raise BadName(f"{text[:80]!r} is not a full commit id.")
    return text


def check_ref(text: str) -> str:
    """``text`` if it is a full ref (``refs/…``) that Git would take, and we do. Raises BadName."""
    parts = text.split("/")
    wrong = (
        not is_gits_ref(text)
        or len(parts) < 3
        or len(text.encode()) > MAX_REF
        or any(part.startswith("-") for part in parts)
    )
    if wrong:
        raise BadName(f"{text[:80]!r} is not a ref that can be built.")
    return text


def is_gits_ref(text: str) -> bool:
    """Whether a repository may have it, though perhaps we build nothing of it: one that is very
    long, or that looks like an option."""
    return (
        text.startswith("refs/")
        and not _FORBIDDEN.search(text)
        and not text.endswith(".")
        and all(part and part[0] != "." and not part.endswith(".lock") for part in text.split("/"))
        and _encodes(text)
    )


def is_ref(text: str) -> bool:
    """Whether ``check_ref`` takes it."""
    try:
        check_ref(text)
    except BadName:
        return False
    return True


def check_path(text: str) -> str:
    """``text`` if it is a relative path that stays where it is. Raises BadName."""
    parts = text.split("/")
    if not text or len(text) > MAX_PATH or "\0" in text or not _encodes(text):
        raise BadName(f"{text[:80]!r} is not a path in a repository.")
    if any(part in {"", ".", ".."} for part in parts):
        raise BadName(f"{text[:80]!r} does not stay inside the repository.")
    return text


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
