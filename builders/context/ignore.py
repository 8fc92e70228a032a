"""``.dockerignore``: which paths of a context COPY and ADD do not see.

Rules are moby/patternmatcher's (MatchesUsingParentResults); ``<Dockerfile>.dockerignore``
wins over the context's own file. Entries come parents first, so each folder's
verdict is kept and a path is matched once, not once for every folder above it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from e2b_dockerfile_utils import PatternMatcher

from builders.context import Entry, Kind
from builders.context.globs import STAR, one_way
from builders.errors import ContextError

MAX_BYTES = 1024 * 1024
DEEP = "**"
_SPECIAL = re.compile(r"[*?\[\]\\]")
_WILD = re.compile(r"[*?\[\\]")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. ``exclusion`` is a ``!`` line; ``parts`` are its path components."""

    expression: str
    exclusion: bool
    parts: tuple[str, ...]
    regex: re.Pattern[str]

    @classmethod
    def parse(cls, cleaned: str) -> Rule:
        pattern = cleaned.removeprefix("!")
        expression = _expression(pattern)
        return cls(
            expression, cleaned.startswith("!"), tuple(pattern.split("/")), re.compile(expression)
        )

    def may_match_under(self, folder: str) -> bool:
        """Whether something below ``folder`` could match."""
        names = folder.split("/")
        for part, name in zip(self.parts, names, strict=False):
            if "**" in part:
                return True
            if not _WILD.search(part) and part != name:
                return False
        return len(self.parts) > len(names)


class Ignore:
    """The parsed rules; ``Ignore.parse(b"")`` ignores nothing."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        self._exclusions = tuple(rule for rule in rules if rule.exclusion)
        # One look tells most paths that no rule is about them.
        self._any = re.compile("|".join(f"(?:{rule.expression})" for rule in rules) or r"(?!)")

    @property
    def identity(self) -> tuple[tuple[str, bool], ...]:
        """Equal for rules that hide the same."""
        return tuple((rule.expression, rule.exclusion) for rule in self._rules)

    @classmethod
    def parse(cls, data: bytes, *, file: str = ".dockerignore") -> Ignore:
        """Raise ContextError for a line that is no pattern."""
        text = data.decode("utf-8-sig", "surrogateescape")
        rules: list[Rule] = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                cleaned = PatternMatcher([line]).patterns
            except ValueError as error:
                reason = str(error).rpartition(": ")[2]
                raise ContextError(
                    f"{line.strip()!r} is no pattern: {reason}.",
                    place=f"{file}:{number}",
                    code="context.ignore",
                ) from None
            rules.extend(Rule.parse(pattern) for pattern in cleaned)
        return cls(tuple(rules))

    def filter(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Entries that stay, and the folders above them that a ``!`` rule needs."""
        if not self._rules:
            yield from entries
            return
        matches: dict[str, list[bool]] = {}  # of folders that some rule matches
        hidden: dict[str, Entry] = {}
        gone = ""  # an ignored folder that no ! rule can reach into
        for entry in entries:
            path = entry.path
            if gone and path.startswith(gone):
                continue
            above = matches.get(path.rpartition("/")[0])
            if above is None and self._any.fullmatch(path) is None:
                yield entry
                continue
            ignored, found = self._judge(path, above)
            if entry.kind is Kind.FOLDER:
                matches[path] = found
            if not ignored:
                yield from _uncovered(path, hidden)
                yield entry
            elif entry.kind is Kind.FOLDER:
                hidden[path] = entry
                if not any(rule.may_match_under(path) for rule in self._exclusions):
                    gone = path + "/"

    def _judge(self, path: str, above: list[bool] | None) -> tuple[bool, list[bool]]:
        ignored = False
        found: list[bool] = []
        for number, rule in enumerate(self._rules):
            match = above is not None and above[number]
            # A rule that could not change the verdict is not asked.
            if not match and rule.exclusion == ignored:
                match = rule.regex.fullmatch(path) is not None
            found.append(match)
            if match:
                ignored = not rule.exclusion
        return ignored, found


def _uncovered(path: str, hidden: dict[str, Entry]) -> Iterator[Entry]:
    """Ignored folders above a path that is not: each is shown once."""
    if not hidden:
        return
    parts = path.split("/")
    for depth in range(1, len(parts)):
        entry = hidden.pop("/".join(parts[:depth]), None)
        if entry is not None:
            yield entry


def _expression(pattern: str) -> str:
    """moby's translation: ``**`` crosses folders, ``*`` and ``?`` do not, ``\\`` escapes."""
    plain = pattern.removeprefix("**")
    if plain != pattern and plain and plain[0] != "/" and not _SPECIAL.search(plain):
        return f"(?s:.*{re.escape(plain)})"  # moby compares the end of the path then
    tokens = list(_tokens(pattern))
    text = ""
    while tokens:
        deep = tokens[0] == DEEP
        section = tokens[1:] if deep else tokens
        end = section.index(DEEP) if DEEP in section else len(section)
        tokens, section = section[end:], section[:end]
        body = one_way(section)
        if not deep:
            text += body
        elif not section:
            text += ".*" if not tokens else "(?:.*/)?"
        elif tokens and section[-1] == "/":
            # What follows may begin anywhere behind: the first place that fits is as good as any.
            text += f"(?>(?:.*?/)??{body})"
        else:
            text += f"(?:.*/)?{body}"
    return f"(?s:{text})"


def _tokens(pattern: str) -> Iterator[str]:
    """``*``, ``**`` (with the slash behind it), ``/`` and expressions of one character each."""
    i = 0
    while i < len(pattern):
        char = pattern[i]
        i += 1
        if char == "*" and pattern[i : i + 1] == "*":
            i += 1
            if pattern[i : i + 1] == "/":
                i += 1
            yield DEEP
        elif char == "*":
            yield STAR
        elif char == "?":
            yield "[^/]"
        elif char == "/":
            yield "/"
        elif char == "[":
            end = _class_end(pattern, i)
            yield pattern[i - 1 : end]
            i = end
        elif char == "\\" and i < len(pattern):
            yield re.escape(pattern[i])
            i += 1
        else:
            yield re.escape(char)


def _class_end(pattern: str, i: int) -> int:
    """The index after the ``]`` of a bracket expression whose inside begins at ``i``."""
    if pattern[i : i + 1] == "^":
        i += 1
    while i < len(pattern) and pattern[i] != "]":
        i += 2 if pattern[i] == "\\" else 1
    return i + 1
