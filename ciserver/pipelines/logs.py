"""Job logs: an append-only file per job, which is the truth that pages and API read.

One record a line: ``MILLISECONDS STEP STREAM TEXT\\n``, where the time counts from the job's
start, STEP is the step's position (0: the job itself) and STREAM is ``out``, ``err`` or
``sys`` (ours). A record's number is its line number, from 1. Text is UTF-8; bytes that are
not are replaced.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ciserver.lib.masking import Masker
from ciserver.pipelines.logfiles import open_log

LINE_CAP = 64 * 1024
JOB_CAP = 64 * 1024 * 1024
READ_SIZE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log; ``at`` is seconds since the job started."""

    number: int
    at: float
    step: int
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader has come: lines read and the byte offset behind the last of them."""

    line: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.line}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position that ``str()`` wrote. Raises ValueError."""
        line, _, offset = text.partition("-")
        position = cls(int(line), int(offset))
        if position.line < 0 or position.offset < 0:
            raise ValueError(f"no position: {text!r}")
        return position


class LogWriter:
    """Appends to one job's log. Safe to use from the threads of one job's steps.

    A line past 64 KiB is split; past 64 MiB a job's output is counted but not kept,
    and a last line says how much was dropped. Secrets are masked in whole lines, so that it
    does not matter how a program's writes cut them.
    """

    def __init__(self, path: Path, *, cap: int = JOB_CAP) -> None:
        path.parent.mkdir(mode=0o2750, parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._open_lines: dict[tuple[int, str], bytes] = {}
        self._room = cap
        self._dropped = 0
        self.masker = Masker()

    def write(self, step: int, stream: str, data: bytes) -> None:
        """Output of a step as it came: any bytes, lines broken anywhere."""
        with self._lock:
            held = self._open_lines.pop((step, stream), b"") + data
            *lines, rest = held.split(b"\n")
            # A secret that is not whole yet lies behind the cut: it will be masked with what comes.
            while len(rest) > LINE_CAP + self.masker.longest:
                rest = self.masker.mask(rest)
                if len(rest) <= LINE_CAP + self.masker.longest:
                    break
                cut = _cut(rest)
                lines.append(rest[:cut])
                rest = rest[cut:]
            if rest:
                self._open_lines[step, stream] = rest
            self._append(step, stream, lines)

    def say(self, text: str, step: int = 0) -> None:
        """A sentence of our own."""
        with self._lock:
            self._append(step, "sys", text.encode().split(b"\n"))

    def flush(self, step: int) -> None:
        """End the lines that ``step`` left without a newline."""
        with self._lock:
            for key in [key for key in self._open_lines if key[0] == step]:
                self._append(*key, [self._open_lines.pop(key)])

    def close(self) -> None:
        with self._lock:
            for (step, stream), rest in self._open_lines.items():
                self._append(step, stream, [rest])
            self._open_lines.clear()
            if self._dropped:
                self._room = LINE_CAP
                note = f"[{self._dropped} bytes more were written and not kept]"
                self._append(0, "sys", [note.encode()])
            os.close(self._fd)

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, step: int, stream: str, lines: list[bytes]) -> None:
        at = int((time.monotonic() - self._start) * 1000)
        records = []
        for line in lines:
            for piece in _pieces(self.masker.mask(line)):
                record = b"%d %d %s %s\n" % (at, step, stream.encode(), piece)
                # What is kept counts, not what was written: an empty line takes room, too.
                if self._room < len(record):
                    self._room = 0
                    self._dropped += len(piece) + 1
                    continue
                self._room -= len(record)
                records.append(record)
        if records:
            _write_all(self._fd, b"".join(records))


class LogReader:
    """Reads one job's log, from any position it gave before."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(
        self, position: Position | None = None, *, size: int = READ_SIZE
    ) -> tuple[list[Line], Position]:
        """The whole lines behind ``position`` (about ``size`` bytes at most), and where they end.

        A log that is not there yet reads as empty. Raises Refused when it is in an object storage
        that does not answer, or damaged.
        """
        position = position or Position()
        try:
            with open_log(self._path) as file:
                file.seek(position.offset)
                data = file.read(size)
        except FileNotFoundError:
            return [], position
        whole = data[: data.rfind(b"\n") + 1]
        lines = [
            parse_record(position.line + index, record)
            for index, record in enumerate(whole.split(b"\n")[:-1], start=1)
        ]
        return lines, Position(position.line + len(lines), position.offset + len(whole))

    def __iter__(self) -> Iterator[Line]:
        position = Position()
        while True:
            lines, position = self.read(position)
            if not lines:
                return
            yield from lines


def _pieces(line: bytes) -> Iterator[bytes]:
    """A line as UTF-8, in pieces of LINE_CAP bytes at most: readers count on that."""
    text = line.decode("utf-8", "replace").rstrip("\r").encode()
    while len(text) > LINE_CAP:
        cut = _cut(text)
        yield text[:cut]
        text = text[cut:]
    yield text


def _cut(text: bytes) -> int:
    """Where the first LINE_CAP bytes end without tearing a character apart (RFC 3629, 3)."""
    for cut in range(LINE_CAP, LINE_CAP - 4, -1):
        if text[cut] & 0xC0 != 0x80:
            return cut
    return LINE_CAP


def parse_record(number: int, record: bytes) -> Line:
    """A record of a log without its newline."""
    at, step, stream, text = record.split(b" ", 3)
    return Line(number, int(at) / 1000, int(step), stream.decode(), text.decode())


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
