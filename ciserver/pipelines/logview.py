"""A job's log as the page shows it: blocks of 1,000 lines, grouped by step, from the end back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from django.utils.safestring import SafeString, mark_safe

from ciserver.pipelines.ansi import to_html
from ciserver.pipelines.logfiles import open_log
from ciserver.pipelines.logs import LINE_CAP, Line, LogReader, Position
from ciserver.pipelines.logsearch import end_of, position_of

BLOCK = 1000
BEFORE = 20  # lines above the one that was asked for
WINDOW_BYTES = 512 * 1024
_STREAMS = {"err": " err", "sys": " sys"}


@dataclass(frozen=True, slots=True)
class Window:
    """Some lines of a log, by step, and where they start and end in the file."""

    start: Position
    end: Position
    steps: dict[int, SafeString]

    @property
    def earlier(self) -> int:
        """How many lines are above."""
        return self.start.line


def last_window(path: Path, job: int, *, count: int = BLOCK, size: int = WINDOW_BYTES) -> Window:
    """The last ``count`` lines of a log (about ``size`` bytes at most), whole lines only."""
    return window_before(path, job, end_of(path), count=count, size=size)


def window_before(
    path: Path, job: int, end: Position, *, count: int = BLOCK, size: int = WINDOW_BYTES
) -> Window:
    """Up to ``count`` lines that end at ``end``."""
    start = _back(path, end, count, size)
    lines, reached = LogReader(path).read(start, size=end.offset - start.offset)
    return Window(start, reached, by_step(lines, job))


def window_at(path: Path, job: int, line: int, *, count: int = BLOCK) -> Window:
    """Up to ``count`` lines with ``line`` among them, a little below the top."""
    start = position_of(path, max(1, line - BEFORE))
    lines, _ = LogReader(path).read(start, size=WINDOW_BYTES)
    lines = lines[:count]
    end = position_of(path, start.line + len(lines) + 1)
    return Window(start, end, by_step(lines, job))


def by_step(lines: Iterable[Line], job: int) -> dict[int, SafeString]:
    """HTML of ``lines`` for each step, in order."""
    steps: dict[int, list[Line]] = {}
    for line in lines:
        steps.setdefault(line.step, []).append(line)
    return {step: lines_html(group, job) for step, group in steps.items()}


def lines_html(lines: Iterable[Line], job: int) -> SafeString:
    return mark_safe("".join(line_html(line, job) for line in lines))  # noqa: S308 - escaped there


def line_html(line: Line, job: int) -> str:
    """One line: its number is a link to itself, its text is escaped."""
    anchor = f"j{job}-L{line.number}"
    return (
        f'<span class="l{_STREAMS.get(line.stream, "")}" id="{anchor}">'
        f'<a href="#{anchor}" data-t="{_clock(line.at)}" tabindex="-1">{line.number}</a>'
        f"{to_html(line.text)}\n</span>"
    )


def runs(lines: Iterable[Line]) -> Iterator[tuple[int, list[Line]]]:
    """Neighbouring lines of one step together."""
    for step, group in groupby(lines, key=lambda line: line.step):
        yield step, list(group)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:06.3f}"


def _back(path: Path, end: Position, count: int, size: int) -> Position:
    """The start of the window that ends at ``end``; at least one line, if there is one."""
    if end.offset == 0:
        return Position()
    first = max(0, end.offset - max(size, 2 * LINE_CAP))
    with open_log(path) as file:
        file.seek(first)
        data = file.read(end.offset - first)
    if first:
        newline = data.find(b"\n") + 1  # the window may start inside a line
        if newline < len(data):
            first, data = first + newline, data[newline:]
    kept = _within(_records(data)[-count:], size)
    return Position(end.line - len(kept), end.offset - sum(map(len, kept)))


def _within(records: list[bytes], size: int) -> list[bytes]:
    """The last records that fit in ``size``, and always the last."""
    total = 0
    for index, record in enumerate(reversed(records)):
        total += len(record)
        if index and total > size:
            return records[-index:]
    return records


def _records(data: bytes) -> list[bytes]:
    """Not splitlines(): a record may hold carriage returns and form feeds."""
    return [record + b"\n" for record in data.split(b"\n")[:-1]]
