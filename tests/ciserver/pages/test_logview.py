"""A log is shown from its end back, in windows of whole lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciserver.pipelines import logview
from ciserver.pipelines.logs import LogReader, LogWriter, Position


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1.log"


def write(path: Path, lines: int, *, step: int = 1, text: str = "line") -> None:
    with LogWriter(path) as log:
        log.write(step, "out", "".join(f"{text} {n}\n" for n in range(1, lines + 1)).encode())


def test_the_last_window_ends_where_the_log_ends(path: Path) -> None:
    write(path, 2500)
    window = logview.last_window(path, 1)
    assert window.earlier == 1500
    assert window.end.offset == path.stat().st_size
    assert window.end.line == 2500
    assert 'id="j1-L1501"' in window.steps[1]
    assert 'id="j1-L1500"' not in window.steps[1]


def test_windows_back_to_the_start_show_every_line_once(path: Path) -> None:
    write(path, 3210)
    window = logview.last_window(path, 1, count=100)
    seen = window.steps[1].count("<a ")
    while window.earlier:
        window = logview.window_before(path, 1, window.start)
        seen += window.steps[1].count("<a ")
    assert seen == 3210
    assert window.start == Position()


def test_a_line_longer_than_a_window_is_shown_whole(path: Path) -> None:
    with LogWriter(path) as log:
        log.write(1, "out", b"before\n" + b"x" * 60_000 + b"\n")
    window = logview.last_window(path, 1, count=100, size=1000)
    assert window.earlier == 1
    assert "x" * 60_000 in window.steps[1]


def test_a_line_that_is_still_being_written_is_left_for_later(path: Path) -> None:
    path.write_bytes(b"0 1 out whole\n5 1 out ha")
    window = logview.last_window(path, 1)
    assert window.end == Position(1, 14)
    lines, _ = LogReader(path).read(window.end)
    assert lines == []
    with path.open("ab") as file:
        file.write(b"lf\n")
    lines, _ = LogReader(path).read(window.end)
    assert [(line.number, line.text) for line in lines] == [(2, "half")]


def test_lines_are_grouped_by_step_and_keep_their_numbers(path: Path) -> None:
    with LogWriter(path) as log:
        log.write(1, "out", b"one\n")
        log.write(2, "err", b"two\n")
        log.write(1, "out", b"three\n")
        log.say("four")
    steps = logview.last_window(path, 7).steps
    assert 'id="j7-L1"' in steps[1]
    assert 'id="j7-L3"' in steps[1]
    assert 'class="l err" id="j7-L2"' in steps[2]
    assert 'class="l sys" id="j7-L4"' in steps[0]


def test_a_log_that_is_not_there_yet_is_empty(path: Path) -> None:
    window = logview.last_window(path, 1)
    assert window.steps == {}
    assert window.earlier == 0


def test_form_feeds_and_carriage_returns_do_not_break_the_count(path: Path) -> None:
    with LogWriter(path) as log:
        log.write(1, "out", b"a\rb\x0cc\x1cd\n" * 30)
    window = logview.last_window(path, 1, count=10)
    assert window.earlier == 20
    assert window.steps[1].count("<a ") == 10
