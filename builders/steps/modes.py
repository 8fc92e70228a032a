"""``--chmod``: octal (``0755``) or symbolic (``u=rwX,go=rX``) permission changes. Pure."""

from __future__ import annotations

import re

from builders.dockerfile.instructions import Position
from builders.errors import DockerfileError

_CLAUSE = re.compile(r"^([ugoa]*)([-+=])([rwxXst]*)$")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


class ModeChange:
    """Parsed once, applied to each file. Raises DockerfileError when it is neither form."""

    def __init__(self, text: str, at: Position) -> None:
        self._octal = int(text, 8) if re.fullmatch(r"[0-7]{1,5}", text) else None
        self._clauses: list[tuple[str, str, str]] = []
        if self._octal is None:
            for clause in text.split(","):
                match = _CLAUSE.match(clause)
                if not match:
                    raise DockerfileError(
                        f"{text!r} is no file mode.",
                        place=at.place,
                        hint="Write it like 0755 or u=rwX,go=rX.",
                        code="dockerfile.value",
                    )
                who, sign, bits = match.groups()
                self._clauses.append((who or "a", sign, bits))
        if self._octal is not None and self._octal > 0o7777:
            raise DockerfileError(f"{text!r} is no file mode.", place=at.place)

    def apply(self, mode: int, *, folder: bool) -> int:
        if self._octal is not None:
            return self._octal
        for who, sign, bits in self._clauses:
            mode = _change(mode, who, sign, bits, folder)
        return mode


def _change(mode: int, who: str, sign: str, bits: str, folder: bool) -> int:
    whom = "ugo" if "a" in who else who
    value = 0
    cleared = 0
    some_x = folder or bool(mode & 0o111)
    for person in whom:
        triple = sum(_BITS[bit] for bit in set(bits) & set(_BITS))
        if "X" in bits and some_x:
            triple |= 1
        value |= triple << _SHIFTS[person]
        cleared |= 7 << _SHIFTS[person]
    if "s" in bits:
        value |= (0o4000 if "u" in whom else 0) | (0o2000 if "g" in whom else 0)
    if "t" in bits:
        value |= 0o1000
    if sign == "+":
        return mode | value
    if sign == "-":
        return mode & ~value
    return (mode & ~cleared) | value
