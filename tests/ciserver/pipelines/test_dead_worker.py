"""A worker is killed in the middle: what it had written stays, and another starts beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from builders.images.store import Store
from ciserver.pipelines import leases
from ciserver.pipelines.logs import LogReader
from ciserver.pipelines.models import Job, Pipeline, State
from ciserver.pipelines.runner import story
from runtime import unread
from runtime.output import Stream
from runtime.reap import reap
from tests.builders.conftest import make_busybox
from tests.builders.registry.conftest import registry  # noqa: F401 - a fixture
from tests.ciserver.pipelines.test_starts import Hosted
from tests.ciserver.pipelines.test_story import area  # noqa: F401 - a fixture
from tests.ciserver.pipelines.working import workshop_in
from tests.conftest import api_as
from tests.home import HOME

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]

LINES = 20_000
# While the worker reads no more (it is stopped) it goes on until the pipes are full.
COUNT = (
    "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i.;"
    " if [ $i = 15000 ]; then printf 'no end' >&2; sleep 2; fi; done"
)
FILES = {"Dockerfile": f"FROM busybox\nRUN {COUNT}\nRUN exit 3\n"}


@pytest.fixture
def hosted(project: Any, area: Path) -> Iterator[Hosted]:  # noqa: F811
    with closing(Hosted(project, area / "tree")) as made:
        yield made


def test_what_was_written_before_the_kill_is_in_the_log_to_the_byte(
    hosted: Hosted,
    alice: Any,
    area: Path,  # noqa: F811
    registry: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_busybox(Store(area / "store"), area / "busybox")
    pipeline = hosted.queue(hosted.push(FILES))

    killed_in_the_middle(pipeline, area, registry)
    first = pipeline.jobs.get(name="build")
    assert first.state == State.RUNNING
    in_log = first.log_path.read_bytes()
    workshop = workshop_in(area, registry)
    reap(workshop.state)
    [sandbox] = unread.listed(workshop.state)
    written = {stream: sandbox.file(stream).read_text() for stream in Stream}
    monkeypatch.setattr(story, "open_workshop", lambda: workshop)
    Pipeline.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    leases.recover()
    story.run(pipeline.pk)

    pipeline.refresh_from_db()
    assert (pipeline.state, pipeline.attempt) == ("failed", 2)
    first, second = pipeline.jobs.filter(name="build")
    assert (first.state, first.reason) == ("cancelled", story.DIED)
    assert second.state == "failed"
    assert first.log_path.read_bytes().startswith(in_log[: in_log.rfind(b"\n") + 1])
    assert "".join(f"{text}\n" for text in texts(first, "out")) == written[Stream.STDOUT]
    assert texts(first, "err") == [written[Stream.STDERR]] == ["no end"]
    assert list(workshop.state.unread_dir.iterdir()) == []
    assert numbers(first) == list(range(1, len(numbers(first)) + 1))
    assert len(numbers(first)) > len([line for line in in_log.split(b"\n") if b" line " in line])
    assert numbers(second) == list(range(1, LINES + 1))
    answer = api_as(alice).get(f"/api/v1/jobs/{first.pk}/log/")
    text = asyncio.run(whole(answer)).decode()
    assert text.splitlines() == [line.text for line in LogReader(first.log_path)]


def killed_in_the_middle(pipeline: Pipeline, area: Path, registry: str) -> None:  # noqa: F811
    """A worker of its own takes the pipeline up, and is killed while its step writes."""
    database = f"sqlite:///{connection.settings_dict['NAME']}"
    env = os.environ | {"GANTRY_DATABASE_URL": database, "GANTRY_HOME": str(HOME)}
    words = ["tests.ciserver.pipelines.working", str(pipeline.pk), str(area), registry]
    worker = subprocess.Popen([sys.executable, "-m", *words], env=env)
    deadline = time.monotonic() + 60
    while True:
        job = Job.objects.filter(pipeline=pipeline, name="build").first()
        if job and job.log_path.exists() and b"line 15000." in job.log_path.read_bytes():
            break
        assert worker.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker.send_signal(signal.SIGSTOP)
    time.sleep(3)
    worker.send_signal(signal.SIGKILL)
    worker.wait()


async def whole(answer: Any) -> bytes:
    return b"".join([chunk async for chunk in answer.streaming_content])


def texts(job: Job, stream: str) -> list[str]:
    return [line.text for line in LogReader(job.log_path) if line.stream == stream]


def numbers(job: Job) -> list[int]:
    return [int(text[5:-1]) for text in texts(job, "out") if text.startswith("line ")]
