"""Projects take turns, none has more at once than it may, and newer commits end older ones."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ciserver.lib import outbox
from ciserver.lib.models import OutboxEntry
from ciserver.pipelines import drain, leases, services
from ciserver.pipelines.models import Event, Pipeline, State
from ciserver.pipelines.runner import story
from ciserver.projects.models import Project
from tests.together import together

Queue = Callable[..., Pipeline]


@pytest.fixture
def queue() -> Queue:
    commits = (f"{number:040x}" for number in range(1000))

    def make(project: Project, ref: str = "refs/heads/main", **more: Any) -> Pipeline:
        commit = more.pop("commit", None) or next(commits)
        return services.queue(project=project, commit=commit, ref=ref, **more)

    return make


def claimed() -> Pipeline | None:
    lease = leases.claim_next()
    return Pipeline.objects.get(pk=lease.pipeline_id) if lease else None


def finish(pipeline: Pipeline) -> None:
    Pipeline.objects.filter(pk=pipeline.pk).update(state=State.PASSED)


def test_a_hundred_queued_pipelines_do_not_hold_up_the_first_of_another_project(
    project: Any, queue: Queue
) -> None:
    many = [queue(project) for _ in range(100)]
    assert claimed() == many[0]
    first = queue(Project.objects.create(slug="other"))

    assert claimed() == first


def test_projects_take_turns_and_each_ones_pipelines_stay_in_order(
    project: Any, queue: Queue
) -> None:
    other = Project.objects.create(slug="other")
    mine, theirs = [queue(project) for _ in range(3)], [queue(other) for _ in range(3)]

    served = []
    while pipeline := claimed():
        served.append(pipeline)
        finish(pipeline)

    assert served == [mine[0], theirs[0], mine[1], theirs[1], mine[2], theirs[2]]


def test_what_lost_its_worker_or_was_handed_back_goes_on_before_anything_new_begins(
    project: Any, queue: Queue
) -> None:
    other = Project.objects.create(slug="other")
    lost, handed_back = queue(project), queue(project)
    assert claimed() == lost
    lease = leases.claim(handed_back.pk)
    assert lease is not None
    queue(project)
    queue(other)
    Pipeline.objects.filter(pk=lost.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    leases.recover()
    handed_back.refresh_from_db()
    leases.hand_back(handed_back, lease)

    assert [claimed(), claimed()] == [lost, handed_back]


def test_a_project_of_which_nothing_runs_comes_first(project: Any, queue: Queue) -> None:
    other = Project.objects.create(slug="other")
    queue(other)
    finish(claimed() or pytest.fail("nothing was there"))
    queue(project)
    claimed()  # the other was served earlier, but this project's runs
    waits = queue(project)
    served_later = queue(other)

    assert claimed() == served_later
    assert claimed() == waits


def test_a_project_has_no_more_at_once_than_it_may(project: Any, queue: Queue) -> None:
    Project.objects.update(concurrency=2)
    first, second, third = (queue(project) for _ in range(3))

    assert (claimed(), claimed(), claimed()) == (first, second, None)
    assert leases.claim(third.pk) is None
    assert OutboxEntry.objects.filter(topic="pipeline.queued", object_id=third.pk).exists()

    finish(first)
    assert claimed() == third


@pytest.mark.django_db(transaction=True)
def test_workers_that_claim_at_once_keep_the_limit_and_each_take_another(
    project: Any, queue: Queue
) -> None:
    Project.objects.update(concurrency=3)
    for _ in range(8):
        queue(project)

    taken = together(lambda _: claimed(), range(8))

    got = [pipeline.pk for pipeline in taken if pipeline]
    assert len(got) == len(set(got)) == 3
    assert Pipeline.objects.filter(state=State.RUNNING).count() == 3


def test_a_message_for_one_pipeline_runs_the_one_whose_turn_it_is(
    project: Any, queue: Queue, monkeypatch: Any
) -> None:
    ran: list[int] = []
    monkeypatch.setattr(story, "_run", lambda lease: ran.append(lease.pipeline_id))
    woken: list[list[int]] = []
    monkeypatch.setattr(outbox.app, "send_task", lambda _, args, **__: woken.append(args))
    monkeypatch.setattr(story, "IN_A_ROW", 0.0)
    first, second = queue(project), queue(project)

    story.run_next()

    assert ran == [first.pk]
    assert woken == [[second.pk]]  # whoever became free has somebody do the next


def test_one_message_does_for_those_that_come_soon_after_one_another(
    project: Any, queue: Queue, monkeypatch: Any
) -> None:
    ran: list[int] = []
    woken: list[list[int]] = []

    def run(lease: leases.Lease) -> None:
        ran.append(lease.pipeline_id)
        if len(ran) == 2:
            drain.begin()

    monkeypatch.setattr(story, "_run", run)
    monkeypatch.setattr(outbox.app, "send_task", lambda _, args, **__: woken.append(args))
    first, second, third = (queue(project) for _ in range(3))
    try:
        story.run_next()
    finally:
        drain.end()
    assert ran == [first.pk, second.pk]  # in turn, until the worker is asked to stop
    assert woken == [[third.pk]]
    story.run_next()
    assert (ran[2:], woken[1:]) == ([third.pk], [])


def test_a_newer_commit_ends_the_older_ones_of_its_branch_where_the_project_says_so(
    project: Any, queue: Queue
) -> None:
    project.cancel_superseded = True
    project.save()
    running = queue(project)
    Pipeline.objects.filter(pk=running.pk).update(state=State.RUNNING)
    queued = queue(project)
    elsewhere = queue(project, "refs/heads/other")
    tag = queue(project, "refs/tags/v1")
    nightly = queue(project, event=Event.SCHEDULE)

    newest = queue(project)

    for pipeline in (running, queued, elsewhere, tag, nightly):
        pipeline.refresh_from_db()
    reason = f"Cancelled by #{newest.number}, which superseded it."
    assert (queued.state, queued.reason) == (State.CANCELLED, reason)
    # Its worker ends it within two seconds.
    assert (running.state, running.cancel_requested_by) == (
        State.RUNNING,
        f"#{queued.number}, which superseded it",
    )
    assert [p.state for p in (elsewhere, tag, nightly)] == [State.QUEUED] * 3


def test_without_the_setting_every_commit_is_built(project: Any, queue: Queue) -> None:
    older = queue(project)
    queue(project)
    older.refresh_from_db()
    assert older.state == State.QUEUED


def test_what_was_superseded_can_be_run_again(project: Any, queue: Queue) -> None:
    project.cancel_superseded = True
    project.save()
    older = queue(project)
    queue(project)
    older.refresh_from_db()

    services.run_again(pipeline=older, by="alice")

    older.refresh_from_db()
    assert (older.state, older.cancel_requested_by) == ("queued", "")


def test_a_pipeline_that_waits_for_its_group_holds_up_no_other_of_its_project(
    project: Any, queue: Queue
) -> None:
    first, waits, free = (queue(project) for _ in range(3))
    Pipeline.objects.filter(pk__in=[first.pk, waits.pk]).update(group="deploy", waits=True)

    assert (claimed(), claimed(), claimed()) == (first, free, None)

    finish(first)
    assert claimed() == waits
