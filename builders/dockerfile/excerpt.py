"""Where in a Dockerfile's line a mistake is: the column, and the line with a caret under it."""

from __future__ import annotations

import re

from builders.errors import BuildError

_WIDEST = 120
_NAMED = re.compile(r"'([^']+)'|\"([^\"]+)\"|(--[a-z][a-z-]*)|\$\{?(\w+)")


def point_at(error: BuildError, data: bytes, file: str) -> None:
    """Give an error whose place is ``FILE:LINE`` its column and excerpt, where that line exists.

    The column (from 1) is that of the word the message names, else of the line's first word.
    """
    name, colon, number = error.place.rpartition(":")
    lines = data.decode("utf-8", "replace").split("\n")
    if not colon or name != file or not number.isdecimal() or not 0 < int(number) <= len(lines):
        return
    line = lines[int(number) - 1].rstrip("\r").replace("\t", " ")
    at = _column(error.message, line)
    start = max(0, at - _WIDEST + 20)
    shown = line[start : start + _WIDEST]
    error.column = at + 1
    error.excerpt = f"  {shown}\n  {' ' * (at - start)}^"


def _column(message: str, line: str) -> int:
    for match in _NAMED.finditer(message):
        word = next(group for group in match.groups() if group)
        found = line.find(word)
        if found >= 0:
            return found
    words = (word.strip("`,;") for word in message.split())
    for word in words:  # a name that the message has without quotes
        if len(word) > 3 and ("/" in word or "." in word[:-1]) and word.rstrip(".") in line:
            return line.find(word.rstrip("."))
    return len(line) - len(line.lstrip())
