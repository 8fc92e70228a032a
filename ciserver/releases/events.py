"""What happened, as events: found by looking, so that no pipeline or deployment waits for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import CharField, Exists, F, Model, OuterRef, Q, Value
from django.db.models.functions import Concat
from django.utils import timezone

from ciserver.lib.turns import one_at_a_time
from ciserver.notifications import outgoing
from ciserver.notifications.models import Event
from ciserver.pipelines.models import Pipeline
from ciserver.releases.models import Deployment, Release

NOT_OLDER = timedelta(days=7)
NOT_ENDED_BEFORE = timedelta(days=1)
AT_A_TIME = 200


def note() -> int:
    """Write down each state that is new, and have webhooks sent. A chore.

    A state that lasts less than a round of the scheduler is not seen; the last one always is.
    """
    with transaction.atomic():
        # Readers go on after the last id that they had: none may come to light behind it.
        one_at_a_time("events")
        rows = [_of_pipeline(row) for row in _new(Pipeline, "pipeline", "project")]
        rows += [_of_release(row) for row in _new_releases()]
        places = ("environment__project", "release")
        rows += [_of_deployment(row) for row in _new(Deployment, "deployment", *places)]
        Event.objects.bulk_create(rows, ignore_conflicts=True)
    return outgoing.spread()


def _new(model: type[Model], kind: str, *related: str) -> list[Any]:
    """Those whose present state has no event yet."""
    now = timezone.now()
    told = Event.objects.filter(
        type=OuterRef("as_type"), object_id=OuterRef("pk"), turn=OuterRef("attempt")
    )
    named = Concat(Value(f"{kind}."), F("state"), output_field=CharField())
    rows = (
        model._default_manager.filter(created_at__gte=now - NOT_OLDER)
        .filter(Q(finished_at=None) | Q(finished_at__gte=now - NOT_ENDED_BEFORE))
        .annotate(as_type=named)
        .filter(~Exists(told))
    )
    return list(rows.select_related(*related).order_by("id")[:AT_A_TIME])


def _new_releases() -> list[Release]:
    told = Event.objects.filter(type="release.made", object_id=OuterRef("pk"))
    recent = Release.objects.filter(created_at__gte=timezone.now() - NOT_ENDED_BEFORE)
    return list(recent.filter(~Exists(told)).select_related("project").order_by("id")[:AT_A_TIME])


def _of_pipeline(row: Pipeline) -> Event:
    return Event(
        project=row.project,
        type=f"pipeline.{row.state}",
        object_id=row.pk,
        turn=row.attempt,
        data={
            "id": row.pk,
            "project": row.project.slug,
            "number": row.number,
            "commit": row.commit,
            "ref": row.ref,
            "state": row.state,
            "reason": row.reason,
            "page": f"{settings.GANTRY.url}{row.get_absolute_url()}",
        },
    )


def _of_release(row: Release) -> Event:
    return Event(
        project=row.project,
        type="release.made",
        object_id=row.pk,
        data={
            "id": row.pk,
            "project": row.project.slug,
            "number": row.number,
            "digest": row.digest,
            "commit": row.commit,
        },
    )


def _of_deployment(row: Deployment) -> Event:
    project = row.environment.project
    return Event(
        project=project,
        type=f"deployment.{row.state}",
        object_id=row.pk,
        turn=row.attempt,
        data={
            "id": row.pk,
            "project": project.slug,
            "environment": row.environment.name,
            "release": row.release.number,
            "digest": row.release.digest,
            "kind": row.kind,
            "state": row.state,
            "reason": row.reason,
            "requested_by": row.requested_by,
        },
    )
