"""Packed logs read as the plain ones did, from a file and from object storage."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciserver.pipelines import logfiles, logpack, logview
from ciserver.pipelines.logs import LogReader, LogWriter, Position
from ciserver.pipelines.logsearch import end_of, position_of, search
from ciserver.pipelines.models import Job, Pipeline
from ciserver.pipelines.runner.logkeeping import forget_old_logs, pack_logs


def write(path: Path, lines: int) -> bytes:
    text = b"".join(b"%d 1 out line %d.\n" % (n, n) for n in range(1, lines + 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    return text


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=30,
    deadline=None,
)
@given(text=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=5))
def test_a_pack_reads_as_the_bytes_that_were_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, cuts: list[int]
) -> None:
    monkeypatch.setattr(logpack, "FRAME", 128)
    logpack._index.cache_clear()
    logpack._frame.cache_clear()
    path = tmp_path / "1.log"
    path.write_bytes(text)
    whole = text[: text.rfind(b"\n") + 1]
    logfiles.keep(path)
    with logfiles.open_log(path) as file:
        assert file.read() == whole
        for cut in cuts:
            file.seek(cut)
            assert file.read(100) == whole[cut : cut + 100]


def test_the_usual_tool_reads_it_too(tmp_path: Path) -> None:
    text = write(tmp_path / "1.log", 50_000)
    logfiles.keep(tmp_path / "1.log")
    (tmp_path / "1.log").with_suffix(".log.zst").rename(tmp_path / "x.zst")
    done = subprocess.run(["zstd", "-dc", str(tmp_path / "x.zst")], capture_output=True, check=True)
    assert done.stdout == text


def test_a_packed_log_of_a_million_lines_opens_anywhere_at_once(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    text = write(path, 1_000_000)
    assert logfiles.keep(path) < len(text) / 5
    assert not path.exists()
    before = time.monotonic()
    lines, _ = LogReader(path).read(position_of(path, 765_432))
    assert lines[0].text == "line 765432."
    assert end_of(path) == Position(1_000_000, len(text))
    assert "line 1000000." in str(logview.last_window(path, 1).steps[1])
    assert time.monotonic() - before < 1  # alone it is 0.02 s
    assert [line.number for line in search(path, "line 987654.")] == [987_654]


def test_a_reader_keeps_its_place_when_the_log_is_packed(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    write(path, 30_000)
    lines, position = LogReader(path).read(size=1000)
    logfiles.keep(path)
    while lines:
        last = lines[-1].number
        lines, position = LogReader(path).read(position)
        assert not lines or lines[0].number == last + 1
    assert last == 30_000


def test_half_a_pack_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    write(path, 30_000)
    logfiles.keep(path)
    packed = path.with_suffix(".log.zst")
    for cut in (0, 3, 100, packed.stat().st_size - 1):
        packed.with_name("2.log.zst").write_bytes(packed.read_bytes()[:cut])
        with pytest.raises(logpack.NotAPack):
            logfiles.open_log(tmp_path / "2.log")


def test_an_index_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    write(path, 30_000)
    logfiles.keep(path)
    packed = path.with_suffix(".log.zst")
    data = bytearray(packed.read_bytes())
    place = len(data) - 8 - 2 * 24 + 8  # where the text of the last frame but one ends
    data[place : place + 8] = bytes(8)
    packed.with_name("2.log.zst").write_bytes(data)
    with pytest.raises(logpack.NotAPack, match="out of order"):
        logfiles.open_log(tmp_path / "2.log")


@pytest.fixture
def job(project: Any) -> Job:
    made = Pipeline.objects.create(project=project, number=1, commit="a" * 40, ref="refs/heads/x")
    ended = timezone.now() - timedelta(minutes=1)
    Pipeline.objects.filter(pk=made.pk).update(finished_at=ended, state="passed")
    found = Job.objects.create(
        pipeline=made, position=1, name="unit", kind="test", state="passed", finished_at=ended
    )
    shutil.rmtree(found.log_path.parent, ignore_errors=True)  # of a row of another test
    with LogWriter(found.log_path) as log:
        log.write(1, "out", b"hello\n" * 1000)
    return found


def test_logs_are_packed_soon_after_their_job(job: Job, settings: Any) -> None:
    before = [line.text for line in LogReader(job.log_path)]
    assert pack_logs() == 1
    assert pack_logs() == 0
    job.refresh_from_db()
    assert 0 < (job.log_bytes or 0) < 400
    assert [line.text for line in LogReader(job.log_path)] == before


def test_beyond_the_size_the_oldest_go_first(job: Job, settings: Any) -> None:
    other = Pipeline.objects.create(
        project=job.pipeline.project, number=2, commit="a" * 40, ref="refs/heads/x"
    )
    ended = timezone.now() - timedelta(minutes=2)
    Pipeline.objects.filter(pk=other.pk).update(finished_at=ended)
    older = Job.objects.create(
        pipeline=other, position=1, name="unit", kind="test", state="passed", finished_at=ended
    )
    write(older.log_path, 100)
    assert pack_logs() == 2
    size = sum(row.log_bytes or 0 for row in Job.objects.all())
    settings.GANTRY = _with(settings.GANTRY, log_bytes=size - 1)
    forget_old_logs()
    assert list(LogReader(older.log_path)) == []
    assert len(list(LogReader(job.log_path))) == 1000
    older.refresh_from_db()
    assert older.log_bytes == 0


def damage(job: Job, frame: int) -> None:
    """Write over the head of a frame of the job's pack, as a bad disk does."""
    with LogWriter(job.log_path) as log:
        log.write(1, "out", b"hello, world\n" * 50_000)
    logfiles.keep(job.log_path)
    packed = job.log_path.with_suffix(".log.zst")
    data = bytearray(packed.read_bytes())
    size = len(data)
    index = logpack.read_index(lambda offset, length: bytes(data[offset : offset + length]), size)
    place = index.packed[frame]
    data[place : place + 8] = b"\xff" * 8
    packed.write_bytes(data)


@pytest.mark.parametrize("asked", ["log/", "log/?after=0-0", "lines/", "search/?q=nothing"])
def test_a_damaged_log_is_refused_with_what_to_do(job: Job, api: Any, asked: str) -> None:
    damage(job, 0)
    answer = api.get(f"/api/v1/jobs/{job.pk}/{asked}")
    assert (answer.status_code, answer.json()["code"]) == (410, "logs.damaged")
    assert "Run the pipeline again" in answer.json()["hint"]


def test_a_log_that_is_damaged_further_on_says_so_where_it_ends(
    job: Job, api: Any, client: Any, alice: Any
) -> None:
    damage(job, 2)
    *whole, last = async_to_sync(_read)(api.get(f"/api/v1/jobs/{job.pk}/log/")).splitlines()
    assert len(whole) > 10_000
    assert set(whole) == {"hello, world"}
    assert last.startswith("This log is damaged where it is kept: its frame 2 ")
    client.force_login(alice)
    page = reverse("pipeline-lines", args=["hello", 1, job.position])
    answer = client.get(f"{page}?line=30000")
    assert answer.status_code == 410
    assert "Run the pipeline again" in answer.content.decode()


async def _read(answer: Any) -> str:
    return b"".join([chunk async for chunk in answer.streaming_content]).decode()


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that speaks S3, with a bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    words = [sys.executable, "-m", "moto.server", "-p", str(port), "-H", "127.0.0.1"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                assert httpx.put(f"{url}/logs", trust_env=False).status_code == 200
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"s3://logs/ours?endpoint={url}"
    finally:
        process.terminate()
        process.wait(10)


def test_packs_go_to_object_storage_and_come_back(
    job: Job, settings: Any, storage: str, alice: Any
) -> None:
    settings.GANTRY = _with(settings.GANTRY, log_store=storage)
    before = list(LogReader(job.log_path))
    assert pack_logs() == 1
    assert list(job.log_path.parent.iterdir()) == []
    assert list(LogReader(job.log_path)) == before
    assert position_of(job.log_path, 500).line == 499
    forget_old_logs()
    assert list(LogReader(job.log_path)) == before
    settings.GANTRY = _with(settings.GANTRY, log_bytes=1)
    forget_old_logs()
    from ciserver.pipelines import logobjects

    logobjects._index.cache_clear()
    assert list(LogReader(job.log_path)) == []


def _with(config: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(config, **changes)
