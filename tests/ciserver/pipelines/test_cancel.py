"""Whatever a pipeline is at, it ends within two seconds, and all its processes with it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from builders.errors import ImageNotFound
from builders.images.reference import Reference
from builders.registry import Registry
from ciserver.pipelines import drain, leases, services, tasks
from ciserver.pipelines.models import Pipeline, State
from ciserver.pipelines.runner import story
from tests.builders.registry.conftest import RegistryProcess
from tests.ciserver.pipelines.workplace import Workplace

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]

# Ignores being asked, has a child in a session of its own: only the cgroup knows of both.
LONG = f"7{os.getpid()}"  # seconds; nobody else's processes say so
STUBBORN = f"trap '' TERM INT; setsid sleep {LONG} & sleep {LONG} & wait; sleep {LONG}"
AT = {
    "build": {"Dockerfile": f"FROM busybox\nRUN {STUBBORN}\n"},
    "test": {
        "Dockerfile": "FROM busybox\n",
        "gantry.yml": f'tests:\n  unit: {{command: "{STUBBORN}", memory: 64m}}\n',
    },
    "push": {
        "Dockerfile": "FROM busybox\nRUN echo something new > /file\n",
        "gantry.yml": "tests:\n  unit: {command: sleep 1, memory: 64m}\n",
    },
}


@contextmanager
def running(pipeline: Pipeline) -> Iterator[threading.Thread]:
    def work() -> None:
        story.run(pipeline.pk)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        services_cancel(pipeline)
        thread.join(30)


def services_cancel(pipeline: Pipeline) -> None:
    pipeline.refresh_from_db()
    if not pipeline.finished:
        services.cancel(pipeline=pipeline, by="alice")


def processes() -> list[int]:
    """Those of the step or test that runs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            found += [int(entry.name)] if LONG.encode() in command else []
    return found


def until(true: Callable[[], bool], seconds: float) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - began


def cancel_at(pipeline: Pipeline, is_at_it: Callable[[], bool]) -> None:
    with running(pipeline) as thread:
        until(is_at_it, 30)
        services.cancel(pipeline=pipeline, by="alice")
        assert until(lambda: not processes(), 5) < 2
        assert until(lambda: not thread.is_alive(), 5) < 3
    pipeline.refresh_from_db()
    assert (pipeline.state, pipeline.reason) == (State.CANCELLED, "Cancelled by alice.")
    states = set(pipeline.jobs.values_list("state", flat=True))
    assert not {State.RUNNING, State.QUEUED} & states


@pytest.mark.parametrize("job", ["build", "test"])
def test_a_cancel_ends_it_and_all_its_processes_within_two_seconds(
    workplace: Workplace, job: str
) -> None:
    pipeline = workplace.queue(AT[job])

    def is_at_it() -> bool:
        at = pipeline.jobs.filter(kind=job, state=State.RUNNING).exists()
        return at and len(processes()) >= 3

    cancel_at(pipeline, is_at_it)

    assert pipeline.jobs.get(kind=job).state == State.CANCELLED


def test_a_message_that_comes_again_while_it_runs_begins_nothing(workplace: Workplace) -> None:
    """As Redis sends it again once the visibility time-out is over (R5)."""
    pipeline = workplace.queue(AT["build"])
    with running(pipeline):
        until(lambda: len(processes()) >= 3, 30)
        there, fence = sorted(processes()), Pipeline.objects.get(pk=pipeline.pk).fence
        for _ in range(3):
            tasks.run.apply(args=[pipeline.pk], throw=True)
        assert sorted(processes()) == there
        pipeline.refresh_from_db()
        assert (pipeline.state, pipeline.fence) == (State.RUNNING, fence)
        assert pipeline.jobs.filter(kind="build").count() == 1


@pytest.fixture
def elsewhere(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RegistryProcess]:
    """A registry of this test's own, which it may stop."""
    registry = RegistryProcess(tmp_path)
    config = replace(workplace.workshop.config, registry=registry.host, shared_cache=True)
    client = Registry(registry.host)
    workshop = replace(workplace.workshop, config=config, registry=client)
    monkeypatch.setattr(story, "open_workshop", lambda: workshop)
    yield registry
    registry._process.send_signal(signal.SIGCONT)
    registry.close()


def test_a_cancel_ends_a_push_to_a_registry_that_hangs(
    workplace: Workplace, elsewhere: RegistryProcess
) -> None:
    pipeline = workplace.queue(AT["push"])

    def is_at_it() -> bool:
        if pipeline.jobs.filter(kind="test", state=State.RUNNING).exists():
            elsewhere._process.send_signal(signal.SIGSTOP)
        return pipeline.jobs.filter(kind="push", state=State.RUNNING).exists()

    cancel_at(pipeline, is_at_it)

    assert pipeline.jobs.get(kind="push").state == State.CANCELLED
    assert pipeline.digest == ""


def test_who_was_stopped_for_longer_than_its_lease_pushes_nothing_when_it_goes_on(
    workplace: Workplace, elsewhere: RegistryProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = workplace.queue(AT["push"])
    monkeypatch.setattr(leases.Heartbeat, "_look", lambda _: None)  # it has not had its turn yet
    monkeypatch.setattr(leases.Heartbeat, "_renew", lambda _: None)

    def is_at_it() -> bool:
        if pipeline.jobs.filter(kind="test", state=State.RUNNING).exists():
            elsewhere._process.send_signal(signal.SIGSTOP)
        return pipeline.jobs.filter(kind="push", state=State.RUNNING).exists()

    with running(pipeline) as thread:
        until(is_at_it, 30)
        Pipeline.objects.filter(pk=pipeline.pk).update(lease_until=timezone.now())
        assert leases.recover() == [pipeline.pk]
        elsewhere._process.send_signal(signal.SIGCONT)
        until(lambda: not thread.is_alive(), 30)

    pipeline.refresh_from_db()
    assert (pipeline.state, pipeline.digest) == (State.CANCELLED, "")  # ``running`` cancels it
    image = f"{elsewhere.host}/{pipeline.project.slug}:{pipeline.commit}"
    with pytest.raises(ImageNotFound):
        Registry(elsewhere.host).pull(Reference.parse(image), workplace.workshop.store)


def test_a_cancel_ends_the_look_for_steps_of_other_workers_in_a_registry_that_hangs(
    workplace: Workplace, elsewhere: RegistryProcess
) -> None:
    elsewhere._process.send_signal(signal.SIGSTOP)
    pipeline = workplace.queue({"Dockerfile": f"FROM busybox\nRUN echo {LONG} > /new\n"})

    def is_at_it() -> bool:
        return any(thread.name == "shared-cache" for thread in threading.enumerate())

    cancel_at(pipeline, is_at_it)

    assert pipeline.jobs.get(kind="build").state == State.CANCELLED


def test_a_worker_that_is_asked_to_stop_hands_its_pipeline_back_and_another_ends_it(
    workplace: Workplace,
) -> None:
    pipeline = workplace.queue(AT["build"])
    try:
        with running(pipeline) as thread:
            until(lambda: len(processes()) >= 3, 30)
            drain.begin()
            assert until(lambda: not thread.is_alive(), 10) < 4
            pipeline.refresh_from_db()
            assert (pipeline.state, pipeline.attempt) == (State.QUEUED, 0)
            assert "its worker was asked to stop" in pipeline.reason
            assert processes() == []
    finally:
        drain.end()
    services.run_again(pipeline=pipeline, by="alice")
    with running(pipeline):
        until(lambda: len(processes()) >= 3, 30)
    pipeline.refresh_from_db()
    assert (pipeline.state, pipeline.attempt) == (State.CANCELLED, 1)
