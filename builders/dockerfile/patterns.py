"""Patterns of ``${x#p}``, ``${x%p}`` and ``${x/p/r}``, in time proportional to pattern times value.

Whoever pushes writes both: ``${A##*a*a*a*b}`` as a regular expression that backtracks would hold
a worker, and with it the interpreter's lock, for years. Go's ``regexp``, which BuildKit uses, does
not backtrack.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

LONGEST = 128 << 10  # characters of variables in one word: execve(2) takes no longer one


class ShellPattern:
    """``*`` is the shortest run of characters, or the longest where ``greedy``; ``?`` is one; none
    of them a line's end. With ``anchored`` it begins where the value does.

    It has the one method of ``re.Pattern`` that the lexer calls. Raises ValueError for an escape
    of what needs none.
    """

    def __init__(self, pattern: str, greedy: bool, anchored: bool) -> None:
        first, *rest = _chunks(pattern)
        self._anchored = anchored
        self._first = re.compile(first)
        # How much of a line before may belong to it.
        self._overlap = len(first) if "\n" in first else 0
        # Behind a star the first place where the next text fits is as good as any: what can
        # follow a later one can follow it as well. Only the last star decides how long it is.
        stars = [".*?"] * len(rest)
        if greedy:
            stars[-1:] = [".*"] * len(rest[-1:])
        self._rest = [re.compile(star + chunk) for star, chunk in zip(stars, rest, strict=True)]

    def sub(self, put: str | Callable[[str], str], value: str, count: int = 0) -> str:
        """``value`` with the first ``count`` matches replaced, 0 for all; Go's
        ``ReplaceAllString``: an empty match right behind another does not count.

        Raises ValueError for a result of more than LONGEST characters.
        """
        new = put if isinstance(put, str) else put("")
        parts: list[str] = []
        at = ended = done = size = 0
        while at <= len(value) and (found := self._find(value, at)) is not None:
            begin, end = found
            if begin == end == ended and done:
                at += 1
                continue
            parts += [value[ended:begin], new]
            size += begin - ended + len(new)
            if size > LONGEST:
                raise ValueError(f"the result is longer than {LONGEST >> 10} KiB")
            ended = end
            done += 1
            at = end if end > begin else end + 1
            if self._anchored or done == count:
                break
        return "".join([*parts, value[ended:]])

    def _find(self, value: str, at: int) -> tuple[int, int] | None:
        """Begin and end of the leftmost match from ``at`` on."""
        while True:
            found = (
                self._first.match(value, at) if self._anchored else self._first.search(value, at)
            )
            if found is None:
                return None
            end, whole = self._follow(value, found.end())
            if whole:
                return found.start(), end
            # No later beginning on this line can do better.
            line = value.find("\n", end)
            if self._anchored or line < 0:
                return None
            at = max(found.start() + 1, line + 1 - self._overlap)

    def _follow(self, value: str, at: int) -> tuple[int, bool]:
        """How far the stars and what is behind them come from ``at``, and whether all do."""
        for part in self._rest:
            found = part.match(value, at)
            if found is None:
                return at, False
            at = found.end()
        return at, True


@lru_cache(maxsize=64)
def _chunks(pattern: str) -> tuple[str, ...]:
    """Regular expressions of what is between the stars."""
    chunks: list[list[str]] = [[]]
    rest = iter(pattern)
    for char in rest:
        if char == "*":
            chunks.append([])
        elif char == "?":
            chunks[-1].append(".")
        elif char != "\\":
            chunks[-1].append(re.escape(char))
        else:
            escaped = next(rest, "")
            # Those of the ``${}`` word itself are no part of the pattern.
            if escaped not in ("}", "/", "*", "?", "\\"):
                raise ValueError(
                    f"invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'"
                )
            chunks[-1].append(re.escape(escaped))
    return tuple("".join(chunk) for chunk in chunks)


def reverse(pattern: str) -> str:
    """The pattern of the reversed text; escapes stay before what they escape."""
    return "".join(reversed(re.findall(r"\\?.", pattern, re.DOTALL)))
