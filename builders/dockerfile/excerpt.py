"""Where in a Dockerfile a mistake is: its line and column, and the line with a caret under it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from builders.errors import BuildError

_WIDEST = 120
_MOST_LINES = 500  # of one instruction that are looked through
_NAMED = re.compile(r"'([^']+)'|\"([^\"]+)\"|(--[a-z][a-z-]*)|\$\{?(\w+)")
_BACKTICK = re.compile(r"(?:#[^\n]*\n)*#\s*escape\s*=\s*`", re.IGNORECASE)


def point_at(error: BuildError, data: bytes, file: str) -> None:
    """Give an error whose place is ``FILE:LINE`` its column and excerpt, where that line exists.

    The column (from 1) is that of the word the message names, else of the line's first word. Where
    the instruction goes on over several lines, the place becomes the line that has the word.
    """
    name, colon, number = error.place.rpartition(":")
    text = data.decode("utf-8", "replace")
    lines = text.split("\n")
    if not colon or name != file or not number.isdecimal() or not 0 < int(number) <= len(lines):
        return
    escape = "`" if _BACKTICK.match(text) else "\\"
    row, at = _find(error.message, _continued(lines, int(number) - 1, escape))
    shown = _plain(lines[int(number) - 1 + row])
    start = max(0, at - _WIDEST + 20)
    error.place = f"{file}:{int(number) + row}"
    error.column = at + 1
    error.excerpt = f"  {shown[start : start + _WIDEST]}\n  {' ' * (at - start)}^"


def _continued(lines: Sequence[str], first: int, escape: str) -> list[str]:
    """The lines of the instruction that begins at ``first``."""
    found = [_plain(lines[first])]
    for line in lines[first + 1 : first + _MOST_LINES]:
        # Comments and empty lines between do not end it.
        words = next((each for each in reversed(found) if _counts(each)), found[0])
        if not words.rstrip().endswith(escape):
            break
        found.append(_plain(line))
    return found


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _plain(line: str) -> str:
    return line.rstrip("\r").replace("\t", " ")


def _find(message: str, lines: Sequence[str]) -> tuple[int, int]:
    """(line, column) of what the message names, both from 0."""
    for word in _names(message):
        # As a word of its own if it is one anywhere: the secret 't' is not the t of --mount.
        for pattern in (rf"(?<!\w){re.escape(word)}(?!\w)", re.escape(word)):
            for row, line in enumerate(lines):
                found = re.search(pattern, line)
                if found and (row == 0 or _counts(line)):
                    return row, found.start()
    return 0, len(lines[0]) - len(lines[0].lstrip())


def _names(message: str) -> Iterator[str]:
    for match in _NAMED.finditer(message):
        yield next(group for group in match.groups() if group)
    for word in (word.strip("`,;") for word in message.split()):
        # A name without quotes.
        if len(word) > 3 and ("/" in word or "." in word[:-1] or ":" in word[:-1]):
            yield word.rstrip(".")
