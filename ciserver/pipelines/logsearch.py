"""Finding lines of a log: by number, by what they say, and the first that tells of an error.

A log is hardly more than 64 MiB (see ``logs``), which is looked through in a fraction of a second:
pieces of 1 MiB are searched whole, and only records that match are taken apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ciserver.pipelines.logfiles import open_log
from ciserver.pipelines.logpack import PackedLog
from ciserver.pipelines.logs import Line, Position, parse_record

_CHUNK = 1024 * 1024
_FAR = 1 << 62  # no log has so many lines
# What a page leaves out (pipelines/ansi.py), also without its end: so each is looked for once.
_CONTROLS = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)", re.MULTILINE)
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


def search(path: Path, words: str, *, after: int = 0, limit: int = 100) -> list[Line]:
    """The first ``limit`` lines behind line ``after`` that hold ``words``, in any case."""
    needle = words.encode().lower()
    pattern = re.compile(re.escape(needle))
    return list(islice(_matches(path, (needle,), pattern, after), limit))


def first_error(path: Path) -> int | None:
    """The number of the first line that seems to tell of an error."""
    return next((line.number for line in first_errors(path)), None)


def first_errors(path: Path, *, limit: int = 1) -> list[Line]:
    """The first ``limit`` lines that seem to tell of an error."""
    return list(islice(_matches(path, _ERROR_PARTS, _ERROR, 0), limit))


def _matches(
    path: Path, parts: Sequence[bytes], pattern: re.Pattern[bytes], after: int
) -> Iterator[Line]:
    """Lines behind ``after`` that fit ``pattern``; each of those holds one of ``parts``."""
    number = 0
    for chunk in _chunks(path):
        bare = _CONTROLS.sub(b"", chunk) if b"\x1b" in chunk else chunk
        low = bare.lower()
        counted = 0
        for start, end in _lines_with(low, parts):
            number += low.count(b"\n", counted, start)
            counted = start
            line = parse_record(number + 1, bare[start:end])
            # What was found may have been in the record's own head.
            if line.number > after and pattern.search(line.text.encode().lower()):
                yield line
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
