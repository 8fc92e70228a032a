"""The log of a job whose worker was killed is completed from what its sandboxes had written."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from ciserver.lib.crypto import Secret
from ciserver.lib.masking import Masker
from ciserver.pipelines import logfiles
from ciserver.pipelines.logs import JOB_CAP, LogReader, LogWriter, Position
from ciserver.pipelines.models import Job, JobKind, Pipeline, State
from ciserver.pipelines.runner import completing
from ciserver.pipelines.stream import Progress, _Page
from runtime import unread
from runtime.state import Record, StateDirectory

SECRET = Secret("correct-horse")
Said = list[tuple[int, str, str]]


def said(path: Path) -> Said:
    return [(line.step, line.stream, line.text) for line in LogReader(path)]


def written(
    path: Path, output: bytes, cap: int, masker: Masker, apart: dict[int, int] | None = None
) -> bytes:
    """The log of a writer that nobody killed."""
    with LogWriter(path, cap=cap) as log:
        for step, own in (apart or {}).items():
            log.set_apart(step, own)
        log.masker = masker
        log.say("RUN it", 1)
        for start in range(0, len(output), 1000):
            log.write(1, "out", output[start : start + 1000])
        log.flush(1)
    return path.read_bytes()


MANY = b"".join(b"%06d is %s\n" % (n, SECRET.reveal().encode() * (n % 2)) for n in range(20_000))
LONG = b"x" * 100_000 + SECRET.reveal().encode() + b"\xff" * 200_000 + b"\nend\n"
CASES = {
    "lines": (b"".join(b"line %d\n" % n for n in range(500)), JOB_CAP),
    "without an end": (b"one\ntwo", JOB_CAP),
    "a secret in each": (MANY[:9000], JOB_CAP),
    "long lines": (LONG + LONG, JOB_CAP),
    "beyond the cap": (MANY[:150_000], 5000),
    "just beyond the cap": (MANY[:20_000], 5000),
    "one long line beyond the cap": (MANY[:9000] + b"y" * 200_000, 5000),
}


def timeless(log: LogWriter, step: int, stream: str) -> bytes:
    return b"7 %d %s " % (step, stream.encode())


@pytest.mark.parametrize("of_a_service", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_wherever_a_log_was_cut_off_it_becomes_what_it_would_have_been(
    tmp_path: Path, case: str, of_a_service: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of a record. Writes come in other pieces the second time."""
    monkeypatch.setattr(LogWriter, "_head", timeless)  # a longer time takes more of the cap
    output, cap = CASES[case]
    masker = Masker([SECRET])
    apart = {1: cap} if of_a_service else {}
    cap = 300 if of_a_service else cap  # what its job has is of no account
    whole = written(tmp_path / "whole.log", output, cap, masker, apart)
    expected = said(tmp_path / "whole.log")
    path = tmp_path / "cut.log"
    for number in range(30):
        chance = random.Random(number)
        cut = chance.randint(max(0, len(whole) - 300) if number % 2 else 0, len(whole))
        path.write_bytes(whole[:cut])
        with LogWriter(path, cap=cap, complete=True, apart=apart) as log:
            log.masker = masker
            place = 0
            while place < len(output):
                size = chance.randint(1, chance.choice((3000, 100_000, 1_000_000)))
                log.write(1, "out", output[place : place + size])
                place += size
            log.flush(1)
        # What was to be said before, by others, is nobody's to say now.
        assert said(path) == expected[0 if b"RUN it\n" in whole[:cut] else 1 :], f"at {cut}"


def test_what_is_completed_goes_on_in_time(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    path.write_bytes(b"5000 1 out one\n6000 1 out tw")
    with LogWriter(path, complete=True) as log:
        log.write(1, "out", b"one\ntwo\n")
    assert [(line.text, 5 <= line.at < 60) for line in LogReader(path)] == [
        ("one", True),
        ("two", True),
    ]


Leave = Callable[..., str]


@pytest.fixture
def job(project: Any) -> Job:
    pipeline = Pipeline.objects.create(
        project=project, number=1, commit="c" * 40, ref="refs/heads/main", state=State.RUNNING
    )
    made = Job.objects.create(
        pipeline=pipeline, position=1, name="build", kind=JobKind.BUILD, state=State.RUNNING
    )
    logfiles.remove(made.log_path)  # of a row of another test
    return made


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "sandboxes")


@pytest.fixture
def leave(state: StateDirectory) -> Leave:
    """What a reaper leaves of a dead worker's sandbox."""

    def left(note: str, **streams: bytes) -> str:
        id = f"run-{len(list(state.unread_dir.iterdir()))}"
        folder = state.unread_dir / id
        folder.mkdir()
        record = Record(id, "1.1.dead", "cgroup", "", 0.0, "sh", note)
        (folder / "record.json").write_text(json.dumps(asdict(record)))
        for name, data in streams.items():
            (folder / name).write_bytes(data)
        return id

    return left


def killed(job: Job, *writes: tuple[int, str, bytes], masker: Masker | None = None) -> LogWriter:
    """A writer that never comes to its end."""
    log = LogWriter(job.log_path)
    log.masker = masker or Masker()
    for step, stream, data in writes:
        log.write(step, stream, data)
    os.close(log._fd)
    return log


@pytest.mark.django_db
def test_a_follower_reads_on_where_it_was_and_secrets_are_masked(
    job: Job, state: StateDirectory, leave: Leave
) -> None:
    masker = Masker([SECRET])
    page = _Page(job.pipeline_id, Progress(0))
    log = killed(job, (1, "out", b"one\ncorrect-horse\nthree and corr"), masker=masker)
    seen, position = LogReader(job.log_path).read()
    frames = "".join(page.read())
    assert [f'id="j1-L{n}"' in frames for n in (2, 3)] == [True, False]
    note = completing.note_of(job, 1, log).replace('"before": {"out": 2}', '"before": {}')
    assert "horse" not in note
    leave(
        note,
        stdout=b"one\ncorrect-horse\nthree and correct-horse\nfour",
        stderr=b"Y29ycmVjdC1ob3JzZQ== broken\n",
    )
    completing.complete_logs(state)
    more, _ = LogReader(job.log_path).read(Position.parse(str(position)))
    assert [(line.number, line.stream, line.text) for line in (*seen, *more)] == [
        (1, "out", "one"),
        (2, "out", "***"),
        (3, "out", "three and ***"),
        (4, "err", "***Q== broken"),
        (5, "out", "four"),
    ]
    assert unread.listed(state) == []
    # Its pipeline may have been given up meanwhile, but for the rest of the log it is not over.
    Job.objects.update(finished_at=timezone.now(), state=State.CANCELLED)
    Pipeline.objects.update(finished_at=timezone.now(), state=State.CANCELLED)
    frames = "".join(page.read())
    assert [f'id="j1-L{n}"' in frames for n in (2, 3, 4, 5)] == [False, True, True, True]
    assert "event: end" not in frames


@pytest.mark.django_db
def test_lines_of_a_step_that_are_not_its_sandboxs_are_told_apart(
    job: Job, state: StateDirectory, leave: Leave
) -> None:
    """A build says on a step's stderr that a cache was emptied; only then its sandbox begins."""
    log = LogWriter(job.log_path)
    log.write(1, "err", b"Notice: emptied.\n")
    note = completing.note_of(job, 1, log)
    log.write(1, "err", b"one\n")
    os.close(log._fd)
    leave(note, stderr=b"one\ntwo\n")
    completing.complete_logs(state)
    assert [text for _, _, text in said(job.log_path)] == ["Notice: emptied.", "one", "two"]


@pytest.mark.django_db
def test_a_service_that_had_its_fill_takes_nothing_of_the_job_afterwards(
    job: Job, state: StateDirectory, leave: Leave
) -> None:
    noise = b"".join(b"%07d\n" % n for n in range(20_000))
    log = LogWriter(job.log_path)
    log.set_apart(1, 1000)
    notes = [completing.note_of(job, step, log) for step in (1, 2)]
    log.write(1, "out", noise)
    log.write(2, "out", b"one\n")
    os.close(log._fd)
    leave(notes[0], stdout=noise)
    leave(notes[1], stdout=b"one\ntwo\n")
    completing.complete_logs(state)
    lines = said(job.log_path)
    assert [text for step, _, text in lines if step == 2] == ["one", "two"]
    kept = [text for step, stream, text in lines if (step, stream) == (1, "out")]
    marks = [text for step, stream, text in lines if (step, stream) == (1, "sys")]
    assert marks[0].startswith("[1000 bytes of a service's output")
    assert marks[1:] == [f"[{(20_000 - len(kept)) * 8} bytes were written here and are not kept]"]
    assert kept[-1] == "0019999"


@pytest.mark.django_db
def test_several_steps_are_completed_and_doing_it_twice_changes_nothing(
    job: Job, state: StateDirectory, leave: Leave
) -> None:
    log = killed(job, (1, "out", b"a\n"), (2, "out", b"b\n"))
    notes = [completing.note_of(job, step, log).replace(': {"out": 1}', ": {}") for step in (1, 2)]
    for _ in range(2):
        for note, letter in zip(notes, (b"a", b"b"), strict=True):
            leave(note, stdout=(letter + b"\n") * 3)
        completing.complete_logs(state)
        assert said(job.log_path) == [
            *((1, "out", "a"), (2, "out", "b"), (1, "out", "a"), (1, "out", "a")),
            *((2, "out", "b"), (2, "out", "b")),
        ]


@pytest.mark.django_db
def test_a_log_that_was_packed_meanwhile_is_packed_again(
    job: Job, state: StateDirectory, leave: Leave
) -> None:
    note = completing.note_of(job, 1, killed(job, (1, "out", b"one\ntw")))
    Job.objects.update(log_bytes=logfiles.keep(job.log_path), finished_at=timezone.now())
    assert not job.log_path.exists()
    leave(note.replace(': {"out": 1}', ": {}"), stdout=b"one\ntwo\n")
    completing.complete_logs(state)
    assert [text for _, _, text in said(job.log_path)] == ["one", "two"]
    job.refresh_from_db()
    assert job.log_bytes is None
    logfiles.keep(job.log_path)
    assert [text for _, _, text in said(job.log_path)] == ["one", "two"]


@pytest.mark.django_db
def test_what_is_of_no_job_or_of_one_that_is_gone_is_no_trouble(
    job: Job, state: StateDirectory, leave: Leave
) -> None:
    log = killed(job, (1, "out", b"one\n"))
    of_others = leave("", stdout=b"by hand\n")
    broken = leave(
        json.dumps({"job": job.pk, "step": 1, "before": {}, "secrets": "9:AAAA"}), stdout=b"x\n"
    )
    gone = Job(pk=job.pk + 1)
    leave(completing.note_of(gone, 1, log), stdout=b"gone\n")
    completing.complete_logs(state)
    assert {one.id for one in unread.listed(state)} == {of_others, broken}
    assert said(job.log_path) == [(1, "out", "one")]
    job.log_path.unlink()
    leave(completing.note_of(job, 1, log), stdout=b"forgotten\n")
    completing.complete_logs(state)
    assert {one.id for one in unread.listed(state)} == {of_others, broken}
    assert not job.log_path.exists()
