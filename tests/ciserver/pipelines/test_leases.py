"""Leases: one worker at a time, whatever dies."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from ciserver.lib.leasing import Watch
from ciserver.lib.models import OutboxEntry
from ciserver.lib.problems import Refused
from ciserver.lib.states import IllegalMove
from ciserver.pipelines import drain, leases, services
from ciserver.pipelines.models import HEARTBEAT, LEASE, MAX_ATTEMPTS, Job, Pipeline, State
from ciserver.pipelines.runner import story


@pytest.fixture
def pipeline(project: Any) -> Pipeline:
    return services.queue(project=project, commit="a" * 40, ref="refs/heads/main", title="First")


def expire(pipeline: Pipeline) -> None:
    past = timezone.now() - timedelta(seconds=1)
    Pipeline.objects.filter(pk=pipeline.pk).update(lease_until=past)


def test_queueing_numbers_within_the_project_and_promises(pipeline: Pipeline) -> None:
    second = services.queue(project=pipeline.project, commit="b" * 40, ref="refs/heads/main")
    assert (pipeline.number, second.number) == (1, 2)
    assert OutboxEntry.objects.filter(topic="pipeline.queued").count() == 2


def test_a_pipeline_is_claimed_once(pipeline: Pipeline) -> None:
    lease = leases.claim(pipeline.pk)
    assert lease is not None
    assert lease.fence == 1
    assert leases.claim(pipeline.pk) is None
    assert not OutboxEntry.objects.exists()


def test_a_living_lease_is_left_alone(pipeline: Pipeline) -> None:
    leases.claim(pipeline.pk)
    assert leases.recover() == []


def test_the_pipeline_of_a_dead_worker_goes_back_to_the_queue_with_a_new_fence(
    pipeline: Pipeline,
) -> None:
    lease = leases.claim(pipeline.pk)
    expire(pipeline)
    assert leases.recover() == [pipeline.pk]
    pipeline.refresh_from_db()
    assert pipeline.state == State.QUEUED
    assert lease is not None
    assert pipeline.fence > lease.fence
    assert OutboxEntry.objects.filter(topic="pipeline.queued", object_id=pipeline.pk).exists()


def test_after_three_dead_workers_it_fails_and_says_why(pipeline: Pipeline) -> None:
    for _ in range(MAX_ATTEMPTS):
        assert leases.claim(pipeline.pk) is not None
        expire(pipeline)
        leases.recover()
    pipeline.refresh_from_db()
    assert pipeline.state == State.FAILED
    assert "worker died in each of 3 attempts" in pipeline.reason


def test_cancelling_a_queued_pipeline_ends_it_at_once(pipeline: Pipeline) -> None:
    services.cancel(pipeline=pipeline, by="alice")
    pipeline.refresh_from_db()
    assert (pipeline.state, pipeline.reason) == (State.CANCELLED, "Cancelled by alice.")
    assert leases.claim(pipeline.pk) is None


def test_cancelling_a_finished_pipeline_is_refused(pipeline: Pipeline) -> None:
    services.cancel(pipeline=pipeline, by="alice")
    with pytest.raises(Refused, match="already ended"):
        services.cancel(pipeline=pipeline, by="alice")


def test_a_running_pipeline_whose_worker_died_after_a_cancel_is_cancelled(
    pipeline: Pipeline,
) -> None:
    leases.claim(pipeline.pk)
    services.cancel(pipeline=pipeline, by="alice")
    expire(pipeline)
    leases.recover()
    pipeline.refresh_from_db()
    assert pipeline.state == State.CANCELLED


def test_a_job_that_was_cancelled_before_keeps_the_time_of_its_end(pipeline: Pipeline) -> None:
    ended = timezone.now() - timedelta(days=1)
    Job.objects.create(
        pipeline=pipeline, position=1, name="unit", kind="test", state="cancelled",
        started_at=ended, finished_at=ended,
    )  # fmt: skip
    Job.objects.create(pipeline=pipeline, position=2, name="page", kind="test", state="running")
    leases.claim(pipeline.pk)
    services.cancel(pipeline=pipeline, by="alice")
    expire(pipeline)
    leases.recover()
    before, now = pipeline.jobs.all()
    assert (before.finished_at, before.state) == (ended, "cancelled")
    assert (now.finished_at > ended, now.state) == (True, "cancelled")


@pytest.mark.django_db(transaction=True)
def test_the_heartbeat_sees_a_cancel_within_two_seconds(pipeline: Pipeline) -> None:
    lease = leases.claim(pipeline.pk)
    assert lease is not None
    with leases.Heartbeat(lease) as heart:
        services.cancel(pipeline=pipeline, by="alice")
        assert heart.cancel.wait(2.0)
    assert heart.cancelled_by == "alice"


@pytest.mark.django_db(transaction=True)
def test_the_heartbeat_notices_that_the_lease_was_taken(pipeline: Pipeline) -> None:
    lease = leases.claim(pipeline.pk)
    assert lease is not None
    with leases.Heartbeat(lease) as heart:
        Pipeline.objects.filter(pk=pipeline.pk).update(fence=99)
        assert heart.cancel.wait(2.0)
    assert heart.cancelled_by == ""


@pytest.mark.django_db(transaction=True)
def test_the_heartbeat_outlives_a_database_that_is_away_for_a_moment(
    pipeline: Pipeline, monkeypatch: Any
) -> None:
    lease = leases.claim(pipeline.pk)
    assert lease is not None
    looked = threading.Event()

    def away(_: leases.Heartbeat) -> None:
        looked.set()
        raise OperationalError("database is locked")

    with leases.Heartbeat(lease) as heart:
        with monkeypatch.context() as patch:
            patch.setattr(leases.Heartbeat, "_look", away)
            assert looked.wait(3.0)
        services.cancel(pipeline=pipeline, by="alice")
        assert heart.cancel.wait(3.0)


def test_what_a_worker_does_after_its_lease_was_taken_changes_nothing(pipeline: Pipeline) -> None:
    lease = leases.claim(pipeline.pk)
    assert lease is not None
    expire(pipeline)
    leases.recover()
    successor = leases.claim(pipeline.pk)
    assert successor is not None
    with pytest.raises(leases.LeaseLost), leases.held(lease):
        pipeline.jobs.all().delete()
    with leases.held(successor):
        pass


@pytest.fixture
def worker_is_asked_to_stop() -> Iterator[None]:
    drain.begin()
    yield
    drain.end()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("worker_is_asked_to_stop")
def test_the_heartbeat_of_a_worker_that_is_asked_to_stop_ends_the_work(pipeline: Pipeline) -> None:
    lease = leases.claim(pipeline.pk)
    assert lease is not None
    with leases.Heartbeat(lease) as heart:
        assert heart.cancel.wait(2.0)
        assert heart.draining


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("worker_is_asked_to_stop")
def test_a_cancel_counts_for_more_than_a_stop(pipeline: Pipeline) -> None:
    lease = leases.claim(pipeline.pk)
    assert lease is not None
    services.cancel(pipeline=pipeline, by="alice")
    with leases.Heartbeat(lease) as heart:
        assert heart.cancel.wait(2.0)
    assert (heart.draining, heart.cancelled_by) == (False, "alice")


@pytest.mark.usefixtures("worker_is_asked_to_stop")
def test_a_worker_that_is_asked_to_stop_takes_nothing_more(pipeline: Pipeline) -> None:
    story.run_next()
    pipeline.refresh_from_db()
    assert pipeline.state == State.QUEUED


def test_pool_processes_learn_that_their_worker_is_asked_to_stop() -> None:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.read(read, 1)
        os._exit(7 if drain.asked() else 1)
    try:
        drain.begin()
        os.write(write, b".")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    finally:
        drain.end()
        os.close(read)
        os.close(write)


def test_what_is_handed_back_is_queued_and_promised_and_counts_as_no_attempt(
    pipeline: Pipeline,
) -> None:
    for _ in range(MAX_ATTEMPTS + 1):
        lease = leases.claim(pipeline.pk)
        assert lease is not None
        pipeline.refresh_from_db()
        leases.hand_back(pipeline, lease)
    assert (pipeline.state, pipeline.attempt) == (State.QUEUED, 0)
    assert pipeline.reason.startswith("Handed back: its worker was asked to stop.")
    assert OutboxEntry.objects.filter(topic="pipeline.queued", object_id=pipeline.pk).exists()
    with pytest.raises(IllegalMove):
        leases.hand_back(pipeline, lease)


@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
def test_leases_go_by_the_databases_clock_whatever_the_workers_says(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    wrong = timezone.now() + timedelta(hours=hours)
    with monkeypatch.context() as patched:
        patched.setattr(timezone, "now", lambda: wrong)
        lease = leases.claim(pipeline.pk)
        assert lease is not None
        leases.Heartbeat(lease)._renew()
        assert leases.recover() == []
    pipeline.refresh_from_db()
    assert pipeline.lease_until is not None
    left = pipeline.lease_until - timezone.now()
    assert timedelta(seconds=10) < left <= timedelta(seconds=21)
    expire(pipeline)
    with monkeypatch.context() as patched:
        patched.setattr(timezone, "now", lambda: wrong)
        assert leases.recover() == [pipeline.pk]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(LEASE, HEARTBEAT, clock)


@pytest.mark.parametrize("hours", [1, 24])
def test_a_clock_that_jumps_ahead_takes_no_lease_from_who_still_renews_it(
    pipeline: Pipeline, watch: Watch, clock: Clock, hours: int
) -> None:
    lease = leases.claim(pipeline.pk)
    assert lease is not None
    for _ in range(5):
        assert leases.recover(watch) == []
        # The clock went ahead: what was renewed a moment ago is over, by it, for hours.
        past = timezone.now() - timedelta(hours=hours)
        Pipeline.objects.filter(pk=pipeline.pk).update(lease_until=past)
        assert leases.recover(watch) == []
        clock.now += HEARTBEAT.total_seconds()
        leases.Heartbeat(lease)._renew()
    pipeline.refresh_from_db()
    assert (pipeline.state, pipeline.fence) == (State.RUNNING, 1)


def test_the_dead_are_noticed_though_the_clock_jumps(
    pipeline: Pipeline, watch: Watch, clock: Clock
) -> None:
    leases.claim(pipeline.pk)
    expire(pipeline)
    assert leases.recover(watch) == []
    clock.now += HEARTBEAT.total_seconds() + 2
    assert leases.recover(watch) == [pipeline.pk]

    leases.claim(pipeline.pk)
    # It went back: by the clock, the lease is good for another day.
    Pipeline.objects.filter(pk=pipeline.pk).update(lease_until=timezone.now() + timedelta(days=1))
    assert leases.recover(watch) == []
    clock.now += LEASE.total_seconds() - 1
    assert leases.recover(watch) == []
    clock.now += 1
    assert leases.recover(watch) == [pipeline.pk]
