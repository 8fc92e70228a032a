"""``--chmod``: octal (``0755``) or symbolic (``u=rwX,go=u-w``) permission changes. Pure.

The symbolic form is that of BSD's setmode(3), which BuildKit has: ``X`` asks for the mode before
any change, a copy (``g=u``) for the one so far. There is no umask.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from builders.dockerfile.instructions import Position
from builders.errors import DockerfileError

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXstugo]*)+)")
_ACTION = re.compile(r"([-+=])([^-+=]*)")
_PIECE = re.compile(r"[ugo]|[^ugo]+")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_EACH = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}
_WHOM = {"u": 0o4700, "g": 0o2070, "o": 0o0007, "a": 0o6777}
_STICKY = 0o1000


class _Change(NamedTuple):
    """``bits`` set (``+``), cleared (``-``) or, where anybody may execute or it is a folder, set
    (``X``); or of the classes in ``bits`` those that the class ``source`` has."""

    sign: str
    bits: int
    source: str = ""


class ModeChange:
    """Parsed once, applied to each file. Raises DockerfileError when it is neither form."""

    def __init__(self, text: str, at: Position) -> None:
        self._octal = int(text, 8) if re.fullmatch(r"[0-7]{1,30}", text) else None
        clauses = [] if self._octal is not None else [_clause(part) for part in text.split(",")]
        if None in clauses or (self._octal or 0) > 0o7777:
            raise DockerfileError(
                f"{text!r} is no file mode.",
                place=at.place,
                hint="Write it like 0755 or u=rwX,go=rX.",
                code="dockerfile.value",
            )
        self._changes = [change for clause in clauses for change in clause or ()]

    def apply(self, mode: int, *, folder: bool) -> int:
        if self._octal is not None:
            return self._octal
        executable = folder or bool(mode & 0o111)
        for change in self._changes:
            if change.source:
                mode = _copied(mode, change)
            elif change.sign == "-":
                mode &= ~change.bits
            elif change.sign == "+" or executable:
                mode |= change.bits
        return mode


def _clause(text: str) -> list[_Change] | None:
    """The changes of ``WHO(SIGN PERMISSIONS)...`` in their order; None where it is no clause."""
    match = _CLAUSE.fullmatch(text)
    if not match:
        return None
    whom = 0
    for person in match.group(1):
        whom |= _WHOM[person]
    return [
        change
        for sign, permissions in _ACTION.findall(match.group(2))
        for change in _action(whom, sign, permissions)
    ]


def _action(whom: int, sign: str, permissions: str) -> Iterator[_Change]:
    """One sign with what follows: letters are gathered until a class is copied."""
    only_others = whom != 0 and not whom & ~0o0007
    pieces = _PIECE.findall(permissions) or [""]
    for piece in pieces:
        if piece in _SHIFTS:
            yield _Change(sign, (whom or _WHOM["a"]) & 0o777, piece)
            continue
        given = set(piece) - ({"s", "t"} if only_others else set())
        if "t" in given:
            whom |= _STICKY  # without any WHO it is then all that is meant, as BSD has it
        bits = 0
        for letter in given - {"X"}:
            bits |= _EACH[letter]
        if "X" in given and sign == "-":
            bits |= _EACH["x"]
        if sign == "=" and (bits or len(pieces) == 1):
            yield _Change("-", whom or _WHOM["a"])
        yield _Change("-" if sign == "-" else "+", bits & (whom or _WHOM["a"]))
        if "X" in given and sign != "-":
            yield _Change("X", _EACH["x"] & (whom or _WHOM["a"]))


def _copied(mode: int, change: _Change) -> int:
    triple = mode >> _SHIFTS[change.source] & 0o7
    bits = 0o111 * triple & change.bits
    if change.sign == "+":
        return mode | bits
    if change.sign == "-":
        return mode & ~bits
    return mode & ~change.bits | bits
