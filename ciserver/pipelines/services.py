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
from ciserver.pipelines.models import PIPELINE_MOVES, Pipeline, State
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
) -> Pipeline:
    """A new pipeline for ``commit``, numbered within its project, and the promise to run it."""
    pipeline = _create(
        project, commit=commit, ref=ref, title=title, author=author, committed_at=committed_at
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


def _create(project: Project, **fields: Any) -> Pipeline:
    # The project's row is the lock that keeps numbers without a gap or a twin.
    Project.objects.select_for_update().get(pk=project.pk)
    last = project.pipelines.aggregate(last=Max("number"))["last"] or 0
    return Pipeline.objects.create(project=project, number=last + 1, **fields)
