"""Finds bytes of secrets in dumps, as ``od``, ``hexdump``, ``xxd`` and ``openssl`` print them.

A dump shows a few bytes in each line, so no line holds a whole secret. Each is read back into
bytes instead: one that shows so many of a secret in a row is known by that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_IN_A_ROW = 4  # bytes; of a shorter secret half of them
_DIGITS = bytes(
    ord("h") if chr(byte) in "0123456789abcdefABCDEF" else byte if chr(byte) in " \n:" else ord("-")
    for byte in range(256)
)
# What every line of a dump that shows four bytes or more has (h: a hexadecimal digit).
_SHAPES = (
    b" hh hh hh",  # hexdump -C, od -tx1
    b"hh:hh:hh:hh",  # openssl
    b" hhhh hhhh",  # xxd, hexdump
    b" hhhhhh hhhhhh",  # od
    b"hhhhhh hhhhhhhh",  # od -tx4
    b" hhhhhhhh hh",  # xxd -g4
    b" hhh hhh hhh",  # od -b
)
_PREFIXED = re.compile(rb"0x..,? 0x")  # xxd -i
_CHARACTERS = re.compile(rb"   [!-~]   [!-~]|(?:   [!-~]|  \\.|  (?:sp|nl)| [0-3][0-7]{2}){3}")
_CELL = re.compile(
    rb"(?<![0-9A-Za-z])(?:0x)?((?:[0-9a-fA-F]{2}){1,4}|[0-9a-fA-F]{16}|[0-3][0-7]{2})"
    rb"(?![0-9A-Za-z])"
)
_CHARACTER_CELLS = re.compile(
    rb"(?:   [!-~ ]|  \\.|  (?:sp|nl|ht|cr)| [a-z]{3}| [0-3][0-7]{2}){2,}"
)
_NAMED = {
    b"\\n": 10, b"nl": 10, b"\\t": 9, b"ht": 9, b"\\r": 13, b"cr": 13, b"sp": 32, b"": 32,
    b"\\0": 0, b"nul": 0,
}  # fmt: skip


class Dumped:
    """Knows lines of dumps that show some of ``secrets``."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._known: dict[int, set[bytes]] = {}
        for raw in secrets:
            size = max(2, min(_IN_A_ROW, len(raw) // 2))
            parts = {raw[place : place + size] for place in range(len(raw) - size + 1)}
            # "----" of a key, or zeros, are in every dump.
            self._known.setdefault(size, set()).update(it for it in parts if len(set(it)) > 1)

    def find(self, line: bytes) -> int | None:
        """Where the cells of a dump begin that show part of a secret."""
        for start, data in _readings(line):
            for size, known in self._known.items():
                if any(data[at : at + size] in known for at in range(len(data) - size + 1)):
                    return start
        return None


def suspects(text: bytes) -> bool:
    """Whether any line of ``text`` may be one of a dump. Quick, and more often right than not."""
    digits = text.translate(_DIGITS)
    return (
        max(map(digits.find, _SHAPES)) >= 0
        or (b" 0x" in text and _PREFIXED.search(text) is not None)
        or (b"   " in text and _CHARACTERS.search(text) is not None)
    )


def _readings(line: bytes) -> Iterator[tuple[int, bytes]]:
    """All that a line may show, each with the place where it begins."""
    for start, cells in _runs(line):
        width = len(cells[0])
        if width % 2 == 0:
            whole = [bytes.fromhex(cell.decode()) for cell in cells]
            yield start, b"".join(whole)
            if width > 2:  # words of a little-endian machine
                yield start, b"".join(it[::-1] for it in whole)
        for base, of in ((8, {3: 1, 6: 2}), (2, {8: 1})):
            size = of.get(width)
            if size and (numbers := _numbers(cells, base, size)):
                yield start, b"".join(it.to_bytes(size, "little") for it in numbers)
    for found in _CHARACTER_CELLS.finditer(line):
        cells = [found[0][at : at + 4].strip() for at in range(0, len(found[0]), 4)]
        yield found.start(), bytes(map(_character, cells))


def _runs(line: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Numbers of one width behind one another; the last may be narrower. An address before them
    is one of its own, or does no harm."""
    start, end, cells = 0, 0, list[bytes]()
    for match in _CELL.finditer(line):
        cell = match[1]
        apart = not cells or line[end : match.start()].strip(b" \t:,")
        if cells and (apart or len(cell) != len(cells[0])):
            if not apart and len(cell) < len(cells[0]) and len(cell) % 2 == 0:
                yield start, [*cells, cell]
            yield start, cells
            cells = []
        if not cells:
            start = match.start()
        cells.append(cell)
        end = match.end()
    if cells:
        yield start, cells


def _numbers(cells: list[bytes], base: int, size: int) -> list[int]:
    """Of ``size`` bytes each. An address may be as wide as they are, to another base."""
    for numbers in (cells, cells[1:]):
        try:
            read = [int(cell, base) for cell in numbers]
        except ValueError:
            continue
        if read and max(read) < 256**size:
            return read
    return []


def _character(cell: bytes) -> int:
    if len(cell) == 1:
        return cell[0]
    if cell.isdigit():
        return int(cell, 8) % 256
    return _NAMED.get(cell, 0)
