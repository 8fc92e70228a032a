"""The ``--flags`` of an instruction: which exist, and what their values may be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from builders.dockerfile.instructions import Position
from builders.errors import DockerfileError

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_LONGEST = 8760 * 3600 * 10**9
_SHORTEST = 1_000_000
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def nearest(word: str, known: Iterable[str]) -> str:
    """ " Did you mean X?", or nothing when no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else ""


class Flags:
    """Flags of one instruction. Asking for each in turn, then ``finish()``."""

    def __init__(self, name: str, words: Sequence[str], at: Position) -> None:
        self._name = name
        self._at = at
        self._left: list[tuple[str, str | None]] = []
        for word in words:
            key, sep, value = word.removeprefix("--").partition("=")
            self._left.append((key, value if sep else None))
        self._asked: list[str] = []

    def every(self, key: str) -> tuple[str, ...]:
        """All values of a flag that may be repeated."""
        self._asked.append(key)
        found = [value for name, value in self._left if name == key]
        self._left = [(name, value) for name, value in self._left if name != key]
        for value in found:
            if value is None:
                raise self._error(f"The flag --{key} needs a value, as in --{key}=...")
        return tuple(value for value in found if value is not None)

    def one(self, key: str, default: str = "") -> str:
        found = self.every(key)
        if len(found) > 1:
            raise self._error(f"The flag --{key} is given {len(found)} times.")
        return found[0] if found else default

    def boolean(self, key: str) -> bool | None:
        self._asked.append(key)
        found = [value for name, value in self._left if name == key]
        self._left = [(name, value) for name, value in self._left if name != key]
        if not found:
            return None
        value = (found[-1] or "true").lower()
        if value not in {"true", "false", "1", "0"}:
            raise self._error(f"The flag --{key} is true or false, not {value!r}.")
        return value in {"true", "1"}

    def finish(self) -> None:
        if self._left:
            key = self._left[0][0]
            known = [f"--{name}" for name in self._asked]
            hint = nearest(f"--{key}", known)
            if not hint:
                hint = f"It knows {', '.join(known)}." if known else "It takes no flags."
            raise self._error(f"{self._name} has no flag --{key}.", hint=hint)

    def _error(self, message: str, hint: str = "") -> DockerfileError:
        return DockerfileError(message, place=self._at.place, hint=hint, code="dockerfile.flag")


def duration(text: str, at: Position) -> int:
    """Nanoseconds of a Go duration such as ``1m30s`` or ``500ms``."""
    parts = _DURATION.findall(text)
    if text == "0":
        return 0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise DockerfileError(
            f"{text!r} is no duration.",
            place=at.place,
            hint="Write it like 30s, 1m30s or 500ms.",
            code="dockerfile.value",
        )
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if 0 < total < _SHORTEST:
        raise DockerfileError(
            f"{text[:40]!r} is too short a time.",
            place=at.place,
            hint="At least 1ms, or 0 for the default.",
            code="dockerfile.value",
        )
    if total > _LONGEST:
        # More does not fit what engines read it into: one such image breaks their listings.
        raise DockerfileError(
            f"{text[:40]!r} is too long a time.",
            place=at.place,
            hint="At most 8760h, a year.",
            code="dockerfile.value",
        )
    return int(total)
