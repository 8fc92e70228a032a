"""Telling forges how pipelines stand: found by looking, so that no pipeline waits for a forge."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import F, OuterRef, Q, Subquery
from django.utils import timezone

from ciserver.lib.words import duration
from ciserver.notifications import services
from ciserver.notifications.models import CommitStatus
from ciserver.notifications.models import State as Shown
from ciserver.pipelines.models import Pipeline, State

AT_A_TIME = 50
NOT_OLDER = timedelta(days=7)
SHOWN = {
    State.QUEUED: Shown.PENDING,
    State.RUNNING: Shown.RUNNING,
    State.PASSED: Shown.SUCCESS,
    State.FAILED: Shown.FAILURE,
    State.CANCELLED: Shown.CANCELLED,
}


def tell_forges() -> int:
    """Note each pipeline's state that its forge does not know, and send what is due. A chore."""
    told = CommitStatus.objects.filter(project=OuterRef("project"), pipeline=OuterRef("number"))
    changed = (
        Pipeline.objects.filter(
            project__status_target__created_at__lte=F("created_at"),
            created_at__gte=timezone.now() - NOT_OLDER,
        )
        .annotate(told=Subquery(told.values("of")[:1]))
        .filter(Q(told=None) | ~Q(told=F("state")))
        .select_related("project")
        .order_by("id")[:AT_A_TIME]
    )
    for pipeline in changed:
        services.note(
            project=pipeline.project,
            pipeline=pipeline.number,
            sha=pipeline.commit,
            of=pipeline.state,
            state=SHOWN[State(pipeline.state)],
            description=describe(pipeline),
            url=f"{settings.GANTRY.url}{pipeline.get_absolute_url()}",
        )
    return services.wake()


def describe(pipeline: Pipeline) -> str:
    """One line for the forge's page."""
    start = f"Pipeline #{pipeline.number}"
    match pipeline.state:
        case State.QUEUED:
            return f"{start} waits for a worker"
        case State.RUNNING:
            return f"{start} is running"
        case State.PASSED:
            return f"{start} passed in {duration(pipeline.seconds)}"
        case State.CANCELLED:
            return f"{start} was cancelled"
    return f"{start} failed: {pipeline.reason}"
