"""What a person, a webhook or a release asks of pipelines."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib import outbox
from ciserver.lib.problems import Refused
from ciserver.lib.states import IllegalMove, move
from ciserver.pipelines import events
from ciserver.pipelines.models import PIPELINE_MOVES, Event, Pipeline, State
from ciserver.projects.models import Project


@transaction.atomic
def queue(
    *,
    project: Project,
    commit: str,
    ref: str,
    title: str = "",
    author: str = "",
    committed_at: datetime | None = None,
    event: Event | None = None,
    from_fork: bool = False,
    pull_request: int | None = None,
) -> Pipeline:
    """A new pipeline for ``commit``, numbered within its project, and the promise to run it.

    ``event`` is a tag's or a push's, as ``ref`` has it, unless given. Nothing of a fork is
    protected, whatever its ref is called.
    """
    pipeline = _create(
        project,
        commit=commit,
        ref=ref,
        title=title,
        author=author,
        committed_at=committed_at,
        event=event or (Event.TAG if ref.startswith("refs/tags/") else Event.PUSH),
        protected=not from_fork and project.protects(ref),
        from_fork=from_fork,
        pull_request=pull_request,
    )
    outbox.promise("pipeline.queued", pipeline.pk)
    transaction.on_commit(events.publish_matrix)
    return pipeline


@transaction.atomic
def cancel(*, pipeline: Pipeline, by: str) -> Pipeline:
    """Ask that ``pipeline`` ends. A queued one ends at once, a running one within two seconds."""
    if pipeline.finished:
        raise Refused(f"Pipeline {pipeline} has already ended.", code="pipeline.finished")
    AuditEntry.record(actor=by, action="pipeline.cancel", target=str(pipeline))
    Pipeline.objects.filter(pk=pipeline.pk).update(cancel_requested_by=by)
    try:
        move(
            pipeline,
            State.CANCELLED,
            table=PIPELINE_MOVES,
            guard={"state": State.QUEUED},
            finished_at=timezone.now(),
            reason=f"Cancelled by {by}.",
        )
    except IllegalMove:
        pass  # it runs: its worker looks at cancel_requested_by with each heartbeat
    else:
        outbox.keep("pipeline.queued", pipeline.pk)
        pipeline.jobs.filter(state=State.QUEUED).update(state=State.CANCELLED)
    transaction.on_commit(lambda: events.publish(pipeline.pk))
    return pipeline


@transaction.atomic
def run_again(*, pipeline: Pipeline, by: str, only_failed: bool = False) -> Pipeline:
    """Queue a pipeline that failed or was cancelled once more, at the same commit.

    Its new jobs stand beside the old ones, whose logs stay. With ``only_failed`` the tests that
    passed are not run again: their results count. Raises Refused.
    """
    if not pipeline.may_run_again:
        refused = (
            f"Pipeline {pipeline} is {pipeline.state}: only one that did not pass is run again."
        )
        raise Refused(refused, code="pipeline.run-again", hint="Push a commit to start a new one.")
    try:
        move(
            pipeline,
            State.QUEUED,
            table=PIPELINE_MOVES,
            guard={"run": pipeline.run, "state__in": [State.FAILED, State.CANCELLED]},
            run=pipeline.run + 1,
            keep_passed=only_failed,
            attempt=0,
            cancel_requested_by="",
            reason="",
            place="",
            started_at=None,
            finished_at=None,
        )
    except IllegalMove:
        refused = f"Pipeline {pipeline} is being run again already."
        raise Refused(refused, code="pipeline.run-again") from None
    AuditEntry.record(
        actor=by, action="pipeline.run-again", target=str(pipeline), only_failed=only_failed
    )
    outbox.promise("pipeline.queued", pipeline.pk)
    transaction.on_commit(lambda: events.publish(pipeline.pk))
    transaction.on_commit(events.publish_matrix)
    return pipeline


def _create(project: Project, **fields: Any) -> Pipeline:
    # The project's row is the lock that keeps numbers without a gap or a twin.
    Project.objects.select_for_update().get(pk=project.pk)
    last = project.pipelines.aggregate(last=Max("number"))["last"] or 0
    return Pipeline.objects.create(project=project, number=last + 1, **fields)
