"""Coverage reports: Cobertura XML, as coverage.py, gcovr and jest write it, and LCOV's tracefiles.

Of both only what they share is read: which lines of which file can run, and which of them did.
https://github.com/cobertura/web/blob/master/htdocs/xml/coverage-04.dtd
https://manpages.debian.org/bookworm/lcov/geninfo.1.en.html#FILES
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ciserver.pipelines.xml_reports import XmlError, read_xml

MOST_FILES = 10_000
MOST_LINES = 2_000_000  # of all files of a pipeline together
HIGHEST_LINE = 10_000_000
LONGEST_PATH = 500


class CoverageError(Exception):
    """A report cannot be read; says why."""


@dataclass(slots=True)
class FileLines:
    """Numbers of lines, from 1, that ran and that did not."""

    covered: set[int] = field(default_factory=set)
    missed: set[int] = field(default_factory=set)

    def add(self, line: int, hits: int) -> None:
        """A line that ran once ran, whatever else is said of it."""
        if hits > 0:
            self.covered.add(line)
            self.missed.discard(line)
        elif line not in self.covered:
            self.missed.add(line)

    def merge(self, other: FileLines) -> None:
        self.covered |= other.covered
        self.missed = (self.missed | other.missed) - self.covered


Files = dict[str, FileLines]


def parse(data: bytes, mask: Callable[[str], str] = str, *, most: int = MOST_LINES) -> Files:
    """The files of one report, by path. Raises CoverageError for what is neither format, or has
    more than ``most`` lines that can run.

    ``mask`` takes secrets out of a path before it is cut: half a secret would not be known as one.
    """
    reader = _Reader(mask, most)
    if _is_xml(data):
        try:
            reader = read_xml(data, lambda: _Cobertura(_Reader(mask, most))).reader
        except XmlError as error:
            raise CoverageError(str(error)) from None
    else:
        _read_lcov(data, reader)
    if not reader.files:
        raise CoverageError("it tells of no file: it is neither Cobertura nor LCOV")
    return reader.files


def _is_xml(data: bytes) -> bool:
    """Also in UTF-16, or behind its mark of UTF-8."""
    return data[:100].lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")[:1] == b"<"


def merge(files: Files, other: Files) -> None:
    """Add to ``files`` what another report found."""
    for path, lines in other.items():
        files.setdefault(path, FileLines()).merge(lines)


def lines_of(files: Files) -> int:
    return sum(len(lines.covered) + len(lines.missed) for lines in files.values())


def to_ranges(lines: Iterable[int]) -> str:
    """``1-3,7``"""
    found: list[list[int]] = []
    for line in sorted(lines):
        if found and line == found[-1][1] + 1:
            found[-1][1] = line
        else:
            found.append([line, line])
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in found)


def from_ranges(text: str) -> set[int]:
    return {line for part in _parts(text) for line in part}


def count(text: str) -> int:
    """How many lines are in such ranges."""
    return sum(map(len, _parts(text)))


def _parts(text: str) -> Iterator[range]:
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield range(int(first), int(last or first) + 1)


@dataclass(slots=True)
class _Reader:
    mask: Callable[[str], str]
    most: int
    files: Files = field(default_factory=dict)
    current: FileLines | None = None
    lines: int = 0

    def begin(self, path: str) -> None:
        # No row of PostgreSQL holds a zero byte.
        shown = self.mask(path.replace("\0", "\ufffd").strip().replace("\\", "/"))
        name = posixpath.normpath(shown)[-LONGEST_PATH:]
        if len(self.files) >= MOST_FILES and name not in self.files:
            raise CoverageError(f"more than {MOST_FILES} files")
        self.current = self.files.setdefault(name, FileLines())

    def line(self, number: str, hits: str) -> None:
        if self.current is None:
            return
        self.lines += 1
        if self.lines > self.most:
            raise CoverageError(f"more than {MOST_LINES} lines of the whole pipeline")
        if number.isdecimal() and len(number) < 9 and 1 <= int(number) <= HIGHEST_LINE:
            self.current.add(int(number), 1 if hits.strip("-0") else 0)


@dataclass(slots=True)
class _Cobertura:
    """Tells ``reader`` of the lines of each class."""

    reader: _Reader

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "class":
            self.reader.begin(attributes.get("filename", "?"))
        elif tag == "line":
            self.reader.line(attributes.get("number", ""), attributes.get("hits", "0"))

    def end(self, tag: str) -> None:
        if tag == "class":
            self.reader.current = None

    def text(self, data: str) -> None:
        pass


def _read_lcov(data: bytes, reader: _Reader) -> None:
    for line in io.BytesIO(data):  # one by one: a list of them takes ten times what they hold
        if not line.startswith((b"SF:", b"DA:", b"end_of_record")):
            continue
        kind, _, value = line.decode(errors="replace").strip("\r\n").partition(":")
        if kind == "SF":
            reader.begin(value)
        elif kind == "DA":
            number, _, rest = value.partition(",")
            reader.line(number.strip(), rest.partition(",")[0].strip())
        elif kind == "end_of_record":
            reader.current = None
