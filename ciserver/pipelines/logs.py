"""Job logs: an append-only file per job, which is the truth that pages and API read.

One record a line: ``MILLISECONDS STEP STREAM TEXT\\n``, where the time counts from the job's
start, STEP is the step's position (0: the job itself) and STREAM is ``out``, ``err`` or
``sys`` (ours). A record's number is its line number, from 1. Text is UTF-8; bytes that are
not are replaced.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ciserver.lib.endings import LONG_LINE, Ending
from ciserver.lib.masking import Masker
from ciserver.pipelines.logfiles import open_log

LINE_CAP = 64 * 1024
JOB_CAP = 64 * 1024 * 1024
SERVICE_CAP = 8 * 1024 * 1024  # of a service, apart from its job's
SERVICES_CAP = 64 * 1024 * 1024  # of all services of a job
END_CAP = 64 * 1024  # of a step whose output is not kept
ENDS_CAP = 8 * 1024 * 1024  # of all such steps of a job, and as much of its services
READ_SIZE = 256 * 1024
_NOT_KEPT = re.compile(rb"\[[0-9]+ bytes were written here and are not kept\]")
_POSITION = re.compile(r"([0-9]{1,15})-([0-9]{1,15})")  # no file is as long as 16 digits


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
        found = _POSITION.fullmatch(text)
        if not found:
            raise ValueError(f"no position: {text[:40]!r}")
        return cls(int(found[1]), int(found[2]))


@dataclass(slots=True)
class _Text:
    """A line or a part of one, and for how many bytes of a program it stands: masking makes that
    another number."""

    text: bytes = b""
    raw: int = 0

    def cut(self, place: int) -> _Text:
        """Take off what is before ``place``."""
        head, self.text = self.text[:place], self.text[place:]
        raw = max(0, self.raw - len(self.text))
        self.raw -= raw
        return _Text(head, raw)


Key = tuple[int, str]  # a step and a stream of it
_JOB = 0  # the room of all steps that have none of their own


@dataclass(slots=True)
class _Rooms:
    """What a log has left: one room for its job, and one for each step of ``apart``."""

    left: dict[int, int]  # bytes of records
    full: set[int]
    services: int  # bytes of records of all steps that have rooms of their own
    ends: dict[bool, int]  # bytes of ends: of these steps (True), and of others

    def of(self, step: int) -> int:
        return step if step in self.left else _JOB

    def is_full(self, step: int) -> bool:
        return self.of(step) in self.full

    def take(self, step: int, size: int) -> bool:
        """Whether so much may be written of it."""
        room = self.of(step)
        if room in self.full or size > self.left[room]:
            return False
        if room != _JOB:
            if size > self.services:
                return False
            self.services -= size
        self.left[room] -= size
        return True

    def take_end(self, step: int, size: int) -> bool:
        kind = self.of(step) != _JOB
        if size > self.ends[kind]:
            return False
        self.ends[kind] -= size
        return True


@dataclass(slots=True)
class _Held:
    """What a log holds that its writer was killed over: records of each stream, those of the end
    of a step apart, which come behind the line that counts what is not kept."""

    records: Counter[Key] = field(default_factory=Counter)
    ends: Counter[Key] = field(default_factory=Counter)
    counted: set[int] = field(default_factory=set)  # steps that have that line
    full: set[int] = field(default_factory=set)  # rooms
    kept: Counter[int] = field(default_factory=Counter)  # bytes that the caps of rooms allowed
    ended: Counter[int] = field(default_factory=Counter)  # and bytes of ends
    at: int = 0  # milliseconds
    size: int = 0  # without a record that was not written to its end

    @classmethod
    def of(cls, path: Path, caps: Mapping[int, int]) -> _Held:
        held = cls()
        full = {step: _full_words(cap, step).encode() for step, cap in caps.items()}
        with path.open("rb") as file:
            for record in file:
                if record.endswith(b"\n"):
                    held._add(record, full)
        return held

    def _add(self, record: bytes, full: Mapping[int, bytes]) -> None:
        at, number, stream, text = record[:-1].split(b" ", 3)
        step, key = int(number), (int(number), stream.decode())
        self.at, self.size = int(at), self.size + len(record)
        room = step if step in full else _JOB
        if stream == b"sys":
            if step == room and text == full[room]:
                self.full.add(room)
            if _NOT_KEPT.fullmatch(text):
                self.counted.add(step)
        elif room in self.full:
            (self.ends if step in self.counted else self.records)[key] += 1
            self.ended[room] += len(text) + 1
        else:
            self.records[key] += 1
            self.kept[room] += len(record)

    def rooms(self, caps: Mapping[int, int]) -> _Rooms:
        """What is left of ``caps``."""
        ended = self.ended.total()
        return _Rooms(
            left={room: cap - self.kept[room] for room, cap in caps.items()},
            full=set(self.full),
            services=SERVICES_CAP - self.kept.total() + self.kept[_JOB],
            ends={
                False: ENDS_CAP - self.ended[_JOB],
                True: ENDS_CAP - ended + self.ended[_JOB],
            },
        )


class LogWriter:
    """Appends to one job's log. Safe to use from the threads of one job's steps.

    A line past 64 KiB is split. Once 64 MiB are kept, of each step only its end is, behind a
    line that says exactly how many bytes before it are not; sentences of our own are always kept.
    Steps that are set ``apart`` have limits of their own, and take nothing of that.
    Secrets are masked in whole lines, so that it does not matter how a program's writes cut them:
    the same bytes always give the same records.

    With ``complete`` it goes on with a log whose writer was killed: of what is written, from the
    beginning of each stream on, it leaves out what the log holds already; ``apart`` is then what
    ``limits`` was.
    """

    def __init__(
        self,
        path: Path,
        *,
        cap: int = JOB_CAP,
        complete: bool = False,
        apart: Mapping[int, int] | None = None,
    ) -> None:
        path.parent.mkdir(mode=0o2750, parents=True, exist_ok=True)
        self._caps = {_JOB: cap, **(apart or {})}
        self._held = _Held.of(path, self._caps) if complete else _Held()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        os.ftruncate(self._fd, self._held.size)
        os.lseek(self._fd, 0, os.SEEK_END)
        self._start = time.monotonic() - self._held.at / 1000
        self._lock = threading.Lock()
        self._open_lines: dict[Key, _Text] = {}
        self._rooms = self._held.rooms(self._caps)
        self._missing: dict[int, int] = {}  # bytes of each step that are not kept
        self._ends: dict[Key, Ending] = {}
        self._records: Counter[Key] = Counter()
        self.masker = Masker()

    def set_apart(self, step: int, cap: int) -> None:
        """``step``, which has written nothing yet, takes of a limit of its own alone."""
        with self._lock:
            self._caps[step] = self._rooms.left[step] = cap

    @property
    def limits(self) -> dict[int, int]:
        """Bytes of each step that was set apart."""
        with self._lock:
            return {step: cap for step, cap in self._caps.items() if step != _JOB}

    def records(self, step: int) -> dict[str, int]:
        """How many the log has by now of each stream of a step."""
        with self._lock:
            return {stream: count for (of, stream), count in self._records.items() if of == step}

    def disown(self, step: int, stream: str, count: int) -> None:
        """The first ``count`` records that the log holds of this are not of what will be written
        again."""
        self._held.records[step, stream] -= count

    def write(self, step: int, stream: str, data: bytes) -> None:
        """Output of a step as it came: any bytes, lines broken anywhere."""
        with self._lock:
            if self._rooms.is_full(step) and self._held.records[step, stream] <= 0:
                self._keep_end(step, stream, _Text(data, len(data)))
                return
            line = self._open_lines.pop((step, stream), _Text())
            line.text += data
            line.raw += len(data)
            ended: list[_Text] = []
            for whole in _ended(line):
                if len(whole.text) > LINE_CAP:
                    ended += self._pieces_of_long(whole)
                ended.append(whole)
            ended += self._pieces_of_long(line)
            if left := self._append(step, stream, ended):
                left.append(line)
                text = b"".join(one.text for one in left)
                self._keep_end(step, stream, _Text(text, sum(one.raw for one in left)))
                return
            if line.text:
                self._open_lines[step, stream] = line

    def say(self, text: str, step: int = 0) -> None:
        """A sentence of our own."""
        with self._lock:
            self._say(text, step)

    def flush(self, step: int) -> None:
        """End the lines that ``step`` left without a newline."""
        with self._lock:
            self._flush(step)

    def close(self) -> None:
        with self._lock:
            for step in {*(step for step, _ in self._open_lines), *self._missing}:
                self._flush(step)
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

    def _pieces_of_long(self, line: _Text) -> list[_Text]:
        """What is cut off a line that is too long to be waited for, or to be looked at whole."""
        pieces = []
        # A secret that is not whole yet lies behind the cut: it will be masked with what comes.
        # Always so much at a time, however it came: so the same is cut off.
        most = LINE_CAP + self.masker.longest + 1
        while len(line.text) >= most:
            head = self.masker.mask(line.text[:most])
            line.text = head + line.text[most:]
            if len(head) == most:
                pieces.append(line.cut(_cut(head)))
        return pieces

    def _append(self, step: int, stream: str, lines: list[_Text]) -> list[_Text]:
        """Keep lines as long as there is room; those for which there is none."""
        head = self._head(step, stream)
        kept: list[bytes] = []
        held = self._held.records
        masked = self.masker.mask_lines([line.text.removesuffix(b"\n") for line in lines])
        for number, line in enumerate(masked):
            record = _records(head, line)
            if held and held[step, stream] > 0:
                record = _without(held, (step, stream), record)
                if not record:
                    continue
            # What is kept counts, not what was written: an empty line takes room, too.
            if not self._rooms.take(step, len(record)):
                self._write_records(step, stream, kept)
                self._fill(step)
                return lines[number:]
            kept.append(record)
        self._write_records(step, stream, kept)
        return []

    def _write_records(self, step: int, stream: str, records: list[bytes]) -> None:
        data = b"".join(records)
        self._records[step, stream] += data.count(b"\n")
        _write_all(self._fd, data)

    def _fill(self, step: int) -> None:
        """From here on only ends are kept, also of the lines that are not ended yet."""
        room = self._rooms.of(step)
        if room in self._rooms.full:
            return
        self._rooms.full.add(room)
        self._say(_full_words(self._caps[room], room), room)
        for key in [key for key in self._open_lines if self._rooms.of(key[0]) == room]:
            self._keep_end(*key, self._open_lines.pop(key))

    def _keep_end(self, step: int, stream: str, data: _Text) -> None:
        self._missing[step] = self._missing.get(step, 0) + data.raw
        self._ends.setdefault((step, stream), Ending(END_CAP)).add(data.text)

    def _flush(self, step: int) -> None:
        for key in [key for key in self._open_lines if key[0] == step]:
            for line in self._append(*key, [self._open_lines.pop(key)]):
                self._keep_end(*key, line)
        if step in self._missing:
            self._write_ends(step)

    def _write_ends(self, step: int) -> None:
        missing = self._missing.pop(step)
        kept: list[bytes] = []
        for key in [key for key in self._ends if key[0] == step]:
            text = self._ends.pop(key).whole_lines()
            if text != LONG_LINE and self._rooms.take_end(step, len(text)):
                missing -= len(text)
                head = self._head(*key)
                lines = text.removesuffix(b"\n").split(b"\n")
                for line in self.masker.mask_lines(lines):
                    kept.append(_without(self._held.ends, key, _records(head, line)))
        if missing > 0 and step not in self._held.counted:
            self._say(f"[{missing} bytes were written here and are not kept]", step)
        _write_all(self._fd, b"".join(kept))

    def _say(self, text: str, step: int) -> None:
        head = self._head(step, "sys")
        # A name of a file may hold what is no text at all.
        lines = self.masker.mask_lines(text.encode(errors="replace").split(b"\n"))
        _write_all(self._fd, b"".join(_records(head, line) for line in lines))

    def _head(self, step: int, stream: str) -> bytes:
        at = int((time.monotonic() - self._start) * 1000)
        return b"%d %d %s " % (at, step, stream.encode())


class LogReader:
    """Reads one job's log, from any position it gave before."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(
        self, position: Position | None = None, *, size: int = READ_SIZE
    ) -> tuple[list[Line], Position]:
        """The whole lines behind ``position`` (about ``size`` bytes at most), and where they end.

        A log that is not there yet reads as empty. Raises Refused when it is in an object storage
        that does not answer, or damaged; ValueError for a position that is inside a line.
        """
        position = position or Position()
        before = min(position.offset, 1)  # that a line ends there shows whether it is one of ours
        try:
            with open_log(self._path) as file:
                file.seek(position.offset - before)
                data = file.read(size + before)
        except FileNotFoundError:
            return [], position
        if before and data and data[:1] != b"\n":
            raise ValueError(f"no line begins at {position}")
        whole = data[before : data.rfind(b"\n") + 1]
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


def _full_words(cap: int, room: int) -> str:
    size = f"{cap >> 20} MiB" if cap >= 1 << 20 else f"{cap} bytes"
    if room != _JOB:
        return f"[{size} of a service's output are kept: of what follows, only its end]"
    return f"[{size} of output are kept: of what follows, only the end of each step]"


def _without(held: Counter[Key], key: Key, records: bytes) -> bytes:
    """``records`` without as many as a log ``held`` already, which are taken off there."""
    while held[key] > 0 and records:
        held[key] -= 1
        records = records[records.index(b"\n") + 1 :]
    return records


def _records(head: bytes, line: bytes) -> bytes:
    return b"".join(head + piece + b"\n" for piece in _pieces(line))


def _ended(line: _Text) -> list[_Text]:
    """Take off ``line`` what has an end, with its newline."""
    *whole, rest = line.text.split(b"\n")
    if not whole:
        return []
    ended = [_Text(text + b"\n", len(text) + 1) for text in whole]
    ended[0].raw += line.raw - len(line.text)
    line.text, line.raw = rest, len(rest)
    return ended


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
