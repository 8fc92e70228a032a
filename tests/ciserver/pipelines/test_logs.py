"""Job logs: what is written is what is read, however it was cut."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciserver.lib.crypto import Secret
from ciserver.lib.masking import Masker
from ciserver.pipelines import logs
from ciserver.pipelines.logs import END_CAP, LINE_CAP, LogReader, LogWriter, Position
from tests.together import together


def texts(path: Path, step: int = 1, stream: str = "out") -> list[str]:
    return [line.text for line in LogReader(path) if (line.step, line.stream) == (step, stream)]


def test_lines_come_back_with_number_step_and_stream(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "a" / "1.log") as log:
        log.write(1, "out", b"one\ntwo\n")
        log.write(2, "err", b"three\n")
        log.say("done")
    lines = list(LogReader(tmp_path / "a" / "1.log"))
    assert [(line.number, line.step, line.stream, line.text) for line in lines] == [
        (1, 1, "out", "one"),
        (2, 1, "out", "two"),
        (3, 2, "err", "three"),
        (4, 0, "sys", "done"),
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_any_bytes_cut_anywhere_read_as_their_lines(
    tmp_path: Path, data: bytes, cuts: list[int]
) -> None:
    path = tmp_path / "1.log"
    bounds = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    with LogWriter(path) as log:
        for start, end in itertools.pairwise(bounds):
            log.write(1, "out", data[start:end])
    whole = data[:-1] if data.endswith(b"\n") else data
    expected = [part.decode("utf-8", "replace").rstrip("\r") for part in whole.split(b"\n")]
    assert texts(path) == (expected if data else [])


def test_a_reader_goes_on_where_it_was_without_gap_or_repeat(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    seen: list[int] = []
    position = Position()
    with LogWriter(path) as log:
        for number in range(500):
            log.write(1, "out", b"line %d\n" % number)
            lines, position = LogReader(path).read(Position.parse(str(position)), size=64)
            seen += [line.number for line in lines]
    while lines:
        lines, position = LogReader(path).read(position)
        seen += [line.number for line in lines]
    assert seen == list(range(1, 501))


def test_a_line_past_the_cap_is_split_and_nothing_of_it_lost(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    with LogWriter(path) as log:
        log.write(1, "out", b"x" * (2 * LINE_CAP + 5))
        log.write(1, "out", b"y\n")
    assert [len(text) for text in texts(path)] == [LINE_CAP, LINE_CAP, 6]


def test_past_the_jobs_cap_the_ends_are_kept_and_the_rest_is_counted_exactly(
    tmp_path: Path,
) -> None:
    path = tmp_path / "1.log"
    with LogWriter(path, cap=1000) as log:
        log.write(2, "out", b"in the mid")
        for number in range(20_000):
            log.write(1, "out", b"%09d\n" % number)
        log.write(1, "err", b"the last words")
        log.flush(1)
        log.write(2, "out", b"dle\n")
        log.say("Kept a file.")
    lines = [(line.step, line.stream, line.text) for line in LogReader(path)]
    full, mark = (
        place for place, line in enumerate(lines) if line[1] == "sys" and place + 3 < len(lines)
    )
    assert "[1000 bytes of output are kept" in lines[full][2]
    assert full == mark - 1
    kept = [int(text) for step, stream, text in lines if (step, stream) == (1, "out")]
    head, tail = kept[:full], kept[full:]
    assert head == list(range(full)) and tail == list(range(20_000 - len(tail), 20_000))
    assert len(tail) > 6000
    missing = (20_000 - len(kept)) * 10
    assert lines[mark][2] == f"[{missing} bytes were written here and are not kept]"
    assert lines[-3:] == [
        (1, "err", "the last words"),
        (0, "sys", "Kept a file."),
        (2, "out", "in the middle"),
    ]


def test_a_noisy_service_takes_nothing_of_its_jobs_log_and_is_counted_exactly(
    tmp_path: Path,
) -> None:
    path = tmp_path / "1.log"
    with LogWriter(path, cap=20_000) as log:
        log.set_apart(1, 1000)
        log.set_apart(2, 1000)
        for number in range(20_000):
            log.write(1, "out", b"%09d\n" % number)
        log.write(2, "err", b"quiet\n")
        for number in range(1000):
            log.write(3, "out", b"%03d\n" % number)
        for step in (3, 1, 2):
            log.flush(step)
    lines = [(line.step, line.stream, line.text) for line in LogReader(path)]
    assert [text for step, _, text in lines if step == 3] == [f"{n:03}" for n in range(1000)]
    assert [text for step, _, text in lines if step == 2] == ["quiet"]
    of_it = [line[1:] for line in lines if line[0] == 1]
    marks = [place for place, (stream, _) in enumerate(of_it) if stream == "sys"]
    assert len(marks) == 2 and marks[1] == marks[0] + 1
    assert of_it[marks[0]][1].startswith("[1000 bytes of a service's output are kept")
    kept = [int(text) for stream, text in of_it if stream == "out"]
    assert kept == [*range(marks[0]), *range(20_000 - len(kept) + marks[0], 20_000)]
    missing = (20_000 - len(kept)) * 10
    assert of_it[marks[1]][1] == f"[{missing} bytes were written here and are not kept]"
    assert not any(step == 0 for step, _, _ in lines)


def test_a_jobs_own_flood_takes_nothing_of_its_services(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    with LogWriter(path, cap=1000) as log:
        log.set_apart(1, 1000)
        log.write(1, "out", b"before\nhal")
        log.write(2, "out", b"x" * 9 + b"\n")
        for _ in range(50_000):
            log.write(2, "out", b"x" * 9 + b"\n")
        log.write(1, "out", b"f\nafter\n")
    said = [line.text for line in LogReader(path) if line.step == 1]
    assert said == ["before", "half", "after"]


def test_all_services_of_a_job_have_a_limit_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SERVICES_CAP", 3500)  # half of it for the fourth
    path = tmp_path / "1.log"
    with LogWriter(path) as log:
        for step in range(1, 9):
            log.set_apart(step, 1000)
            log.write(step, "out", (b"y" * 79 + b"\n") * 2000)
            log.flush(step)
        log.write(9, "out", b"own\n")
    kept: dict[int, int] = {}
    lines = list(LogReader(path))
    for line in lines:
        if line.stream == "out":
            kept[line.step] = kept.get(line.step, 0) + 80
    ends = END_CAP // 80 * 80
    assert [kept[step] - ends > 0 for step in range(1, 9)] == [*[True] * 4, *[False] * 4]
    missing = sum(160_000 - kept[step] for step in range(1, 9))
    assert _missing(path) == missing
    assert lines[-1].text == "own"


def test_steps_may_write_from_several_threads(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    with LogWriter(path) as log:
        together(lambda step: write_many(log, step), range(1, 5))
    assert [line.text for line in LogReader(path)] == ["abc"] * 800


def write_many(log: LogWriter, step: int) -> None:
    for _ in range(200):
        log.write(step, "out", b"ab")
        log.write(step, "out", b"c\n")


def test_no_record_is_longer_than_readers_count_on(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    with LogWriter(path) as log:
        log.write(1, "out", b"\xff" * 65_000 + b"\n")
        log.write(1, "out", "ä".encode() * 65_000 + b"\n")
    lines = [line.text for line in LogReader(path)]
    assert max(len(text.encode()) for text in lines) <= LINE_CAP
    assert "".join(lines) == "\ufffd" * 65_000 + "ä" * 65_000


def test_a_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert LogReader(tmp_path / "none.log").read() == ([], Position())


@pytest.mark.parametrize(
    "text", ["", "1", "a-b", "-1-5", "1--5", "1-2-3", "٣-٣", "1_0-1", "1-+1", "0-" + "9" * 16]
)
def test_a_position_that_we_did_not_write_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Position.parse(text)


def test_empty_lines_take_room_too(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    with LogWriter(path, cap=1000) as log:
        log.write(1, "out", b"\n" * 500_000)
    assert path.stat().st_size < 1300
    assert len(texts(path)) + _missing(path) == 500_000


def _missing(path: Path) -> int:
    """Bytes that the log's marks say are not kept."""
    said = [line.text for line in LogReader(path) if line.stream == "sys"]
    return sum(int(text.split()[0][1:]) for text in said if text.endswith("are not kept]"))


@pytest.mark.parametrize("before", range(8))
def test_a_secret_whose_end_is_still_to_come_is_not_torn_by_the_cut_of_a_long_line(
    tmp_path: Path, before: int
) -> None:
    """Those before it, masked, leave the line just a little longer than a line may be."""
    secret = b"correct-horse-battery-staple"
    with LogWriter(tmp_path / "1.log") as log:
        log.masker = Masker([Secret(secret.decode())])
        start = secret * before + b" "
        room = LINE_CAP + log.masker.longest + 1 - len(start) - 14
        log.write(1, "out", start + b"x" * room + secret[:14])
        log.write(1, "out", secret[14:] + b"\n")
    said = texts(tmp_path / "1.log")
    assert not any(part in line for line in said for part in ("corr", "horse", "battery", "aple"))
    assert "".join(said).count("***") == before + 1


def test_no_reader_begins_inside_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    with LogWriter(path) as log:
        log.write(1, "out", b"one\ntwo\n")
    size = path.stat().st_size
    assert LogReader(path).read(Position(2, size)) == ([], Position(2, size))
    assert LogReader(path).read(Position(9, size + 1))[0] == []
    for offset in range(1, size):
        if path.read_bytes()[offset - 1 : offset] != b"\n":
            with pytest.raises(ValueError, match="no line begins"):
                LogReader(path).read(Position(1, offset))
