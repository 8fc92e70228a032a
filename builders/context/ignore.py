"""``.dockerignore``: which paths of a context COPY and ADD do not see.

Rules are moby/patternmatcher's; ``<Dockerfile>.dockerignore`` wins over the
context's own file. The Dockerfile and the ignore file themselves can be ignored
like any other file: they are read before the rules are applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from e2b_dockerfile_utils import PatternMatcher

from builders.context import Entry, Kind
from builders.errors import ContextError

MAX_BYTES = 1024 * 1024


class Ignore:
    """The parsed rules; ``Ignore.parse(b"")`` ignores nothing."""

    def __init__(self, matcher: PatternMatcher | None) -> None:
        self._matcher = matcher

    @classmethod
    def parse(cls, data: bytes, *, file: str = ".dockerignore") -> Ignore:
        text = data.decode("utf-8-sig", "surrogateescape")
        for number, line in enumerate(text.splitlines(), 1):
            _check(line, f"{file}:{number}")
        patterns = [line.rstrip("\r") for line in text.splitlines()]
        matcher = PatternMatcher(patterns)
        return cls(matcher if matcher.patterns else None)

    def __bool__(self) -> bool:
        return self._matcher is not None

    def filter(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Entries that stay, and the folders above them that a ``!`` rule needs."""
        if self._matcher is None:
            yield from entries
            return
        folders: dict[str, Entry] = {}
        shown: set[str] = set()
        gone = ""  # an ignored folder that no ! rule can reach into
        for entry in entries:
            if gone and entry.path.startswith(gone):
                continue
            if not self._matcher.matches(entry.path):
                yield from _parents(entry.path, folders, shown)
                if entry.path not in shown:
                    shown.add(entry.path)
                    yield entry
            elif entry.kind is Kind.FOLDER:
                folders[entry.path] = entry
                if not self._matcher.may_match_under(entry.path):
                    gone = entry.path + "/"


def _check(line: str, place: str) -> None:
    try:
        PatternMatcher([line])
    except ValueError as error:
        text = str(error).rpartition(": ")[2]
        raise ContextError(
            f"{line.strip()!r} is no pattern: {text}.", place=place, code="context.ignore"
        ) from None


def _parents(path: str, folders: dict[str, Entry], shown: set[str]) -> Iterator[Entry]:
    if not folders:
        return
    parts = path.split("/")
    for depth in range(1, len(parts)):
        parent = "/".join(parts[:depth])
        if parent in folders and parent not in shown:
            shown.add(parent)
            yield folders[parent]
