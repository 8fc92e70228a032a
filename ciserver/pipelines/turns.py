"""Whose turn it is: projects take turns, and none has more pipelines at once than it may.

The rows decide, not the order in which messages arrive: a project with a hundred queued pipelines
does not hold up the first one of another.
"""

from __future__ import annotations

from datetime import datetime

from django.db.models import Count, Exists, Min, OuterRef, Q, QuerySet

from ciserver.pipelines.models import Pipeline, State
from ciserver.projects.models import Project


def next_ones() -> list[int]:
    """The oldest queued pipeline of each project that may start one, the best first.

    Before all others comes what had begun already, and was handed back or lost its worker; then
    a project of which nothing runs; among equals, the one that was served longest ago.
    """
    oldest = dict(_free().order_by().values_list("project").annotate(Min("pk")))
    begun = _free().filter(started_at__isnull=False).order_by()
    resumed = dict(begun.values_list("project").annotate(Min("pk")))
    first = {**oldest, **resumed}
    rows = Pipeline.objects.filter(project__in=oldest, state=State.RUNNING).order_by()
    running = dict(rows.values_list("project").annotate(Count("pk")))
    turns: list[tuple[bool, int, float, int]] = []
    for pk, most, served_at in Project.objects.filter(pk__in=oldest).values_list(
        "pk", "concurrency", "served_at"
    ):
        now = running.get(pk, 0)
        if not most or now < most:
            turns.append((pk not in resumed, now, _stamp(served_at), first[pk]))
    return [pipeline for *_, pipeline in sorted(turns)]


def has_room(project: Project) -> bool:
    """Whether ``project`` may start one more. Asked while its row is locked."""
    if not project.concurrency:
        return True
    return project.pipelines.filter(state=State.RUNNING).count() < project.concurrency


def _free() -> QuerySet[Pipeline]:
    """Queued, and not waiting for another of its group (see ``Pipeline.ahead``)."""
    earlier = Q(state=State.QUEUED, number__lt=OuterRef("number"))
    ahead = Pipeline.objects.filter(
        Q(state=State.RUNNING) | earlier,
        Q(protected=True) | Q(protected=OuterRef("protected")),
        project=OuterRef("project"),
        group=OuterRef("group"),
    )
    queued = Pipeline.objects.filter(state=State.QUEUED, project__archived_at=None)
    return queued.filter(Q(waits=False) | Q(group="") | ~Exists(ahead))


def _stamp(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0
