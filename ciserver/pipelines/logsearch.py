"""Finding lines of a log: by number, by what they say, and the first that tells of an error.

A log is hardly more than 128 MiB (see ``logs``), which is looked through in about a second:
pieces of 1 MiB are searched whole, and only records that match are taken apart. Whoever reads other
pages meanwhile is to notice nothing: of many that search at once, two do.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Protocol

from ciserver.lib.problems import Refused
from ciserver.pipelines.logfiles import open_log
from ciserver.pipelines.logpack import PackedLog
from ciserver.pipelines.logs import Line, Position, parse_record

_CHUNK = 1024 * 1024
_AT_ONCE = 2
_PATIENCE = 20.0  # seconds
_MOST_DOUBTFUL = 500_000  # lines with "error" in them that tell of none
_turns = threading.BoundedSemaphore(_AT_ONCE)
_FAR = 1 << 62  # no log has so many lines
# What a page leaves out (pipelines/ansi.py), also without its end: so each is looked for once.
_CONTROLS = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)", re.MULTILINE)
# Ends of "12 3 out ", and parts of it.
_HEADISH = re.compile(rb"[0-9]* ?[0-9]* ?(?:[a-z]{1,3}(?: |\Z)|\Z)| ")
_ERROR_PARTS = (b"error", b"fail", b"fatal", b"panic", b"traceback", b"exception")
# Words that tools use when something is wrong; "0 errors" is how they say that nothing is.
_ERROR = re.compile(
    rb"(?<![\w./-])(?<!\b0 )(?<!\bno )"
    rb"(?:errors?|fail(?:ed|ures?)|fatal|panic(?:ked)?|traceback|exception|[a-z]+(?:error|exception))"
    rb"(?![\w./-])(?!s?[:=] ?0\b)"
)


def position_of(path: Path, number: int) -> Position:
    """Where the record of line ``number`` (from 1) begins; the log's end when it has fewer."""
    lines, offset = _near(path, number)
    for chunk in _chunks(path, offset):
        count = chunk.count(b"\n")
        if lines + count >= number:
            inside = 0
            for _ in range(number - 1 - lines):
                inside = chunk.index(b"\n", inside) + 1
            return Position(number - 1, offset + inside)
        lines += count
        offset += len(chunk)
    return Position(lines, offset)


def end_of(path: Path) -> Position:
    """The position behind the last whole line."""
    return position_of(path, _FAR)


def search(
    path: Path, words: str, *, after: int = 0, limit: int = 100, size: int = _FAR
) -> list[Line]:
    """The first ``limit`` lines behind line ``after`` that hold ``words``, in any case; fewer when
    they are longer than ``size`` bytes together, but one, if there is one.

    Raises Refused when too many search at once.
    """
    needle = words.encode().lower()
    if b"\n" in needle:
        return []  # no line holds it, though records in their file do
    find = _with_words(needle) if _may_be_of_a_head(needle) else _Holding(needle)
    found: list[Line] = []
    with _turn():
        for line in islice(_matches(path, find, position_of(path, after + 1)), limit):
            size -= len(line.text)
            if found and size < 0:
                break
            found.append(line)
    return found


def first_error(path: Path) -> int | None:
    """The number of the first line that seems to tell of an error."""
    return next((line.number for line in first_errors(path)), None)


def first_errors(path: Path, *, limit: int = 1) -> list[Line]:
    """The first ``limit`` lines that seem to tell of an error. Raises Refused as ``search``."""
    with _turn():
        return list(islice(_matches(path, _Errors(), Position()), limit))


@contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(timeout=_PATIENCE):
        raise Refused(
            "Too many logs are searched at once.",
            code="logs.busy",
            hint="Search again in a moment.",
            status=429,
        )
    try:
        yield
    finally:
        _turns.release()


class Find(Protocol):
    """Of whole records in small letters (start, end) of those that fit."""

    def __call__(self, records: bytes, /) -> Iterator[tuple[int, int]]: ...


class _Holding:
    """Records that hold bytes which no record's own head has or ends with."""

    def __init__(self, needle: bytes) -> None:
        self._needle = needle

    def __call__(self, records: bytes, /) -> Iterator[tuple[int, int]]:
        return _lines_with(records, (self._needle,))


def _with_words(needle: bytes) -> Find:
    """Records whose text holds ``needle``. Slower, but as fast where every head holds it, too."""
    pattern = re.compile(
        rb"^[0-9]+ [0-9]+ [a-z]{3} [^\n]*?" + re.escape(needle) + rb"[^\n]*\n", re.MULTILINE
    )
    return lambda records: (found.span() for found in pattern.finditer(records))


class _Errors:
    """Records that seem to tell of an error, as far as so many had to be looked at."""

    def __init__(self) -> None:
        self._doubtful = 0

    def __call__(self, records: bytes, /) -> Iterator[tuple[int, int]]:
        for start, end in _lines_with(records, _ERROR_PARTS):
            if self._doubtful >= _MOST_DOUBTFUL:
                return
            if _ERROR.search(records, start, end):
                yield start, end
            else:
                self._doubtful += 1


def _may_be_of_a_head(needle: bytes) -> bool:
    """Whether a record's head may hold it, or end with its beginning."""
    return _HEADISH.match(needle) is not None


def _matches(path: Path, find: Find, start: Position) -> Iterator[Line]:
    """Lines behind ``start`` that ``find`` finds."""
    number = start.line
    for chunk in _chunks(path, start.offset):
        bare = _CONTROLS.sub(b"", chunk) if b"\x1b" in chunk else chunk
        low = bare.lower()
        counted = 0
        for first, end in find(low):
            number += low.count(b"\n", counted, first)
            counted = first
            yield parse_record(number + 1, bare[first:end].removesuffix(b"\n"))
        number += low.count(b"\n", counted)


def _lines_with(data: bytes, parts: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """(start, end) of each line that holds one of ``parts``: find() is ten times a pattern."""
    place = 0
    following = {part: data.find(part) for part in parts}
    while True:
        following = {
            part: at if at >= place else data.find(part, place)
            for part, at in following.items()
            if at >= 0
        }
        found = min((at for at in following.values() if at >= 0), default=-1)
        if found < 0:
            return
        end = data.find(b"\n", found)
        yield data.rfind(b"\n", 0, found) + 1, end
        place = end + 1


def _near(path: Path, number: int) -> tuple[int, int]:
    """Lines and bytes before a place at or before line ``number``; a pack's index knows one."""
    try:
        with open_log(path) as file:
            known = file.index.before_line(number) if isinstance(file, PackedLog) else (0, 0)
    except FileNotFoundError:
        return 0, 0
    return known


def _chunks(path: Path, start: int = 0) -> Iterator[bytes]:
    """The log from ``start`` in pieces of whole records; nothing for one that is not there yet."""
    rest = b""
    try:
        with open_log(path) as file:
            file.seek(start)
            while data := file.read(_CHUNK):
                data = rest + data
                cut = data.rfind(b"\n") + 1
                rest = data[cut:]
                if cut:
                    yield data[:cut]
    except FileNotFoundError:
        return
