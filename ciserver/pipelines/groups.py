"""Pipelines of one ``concurrency`` group that wait for one another.

A protected one waits for protected ones alone: whoever may push some branch must not hold it up.
"""

from __future__ import annotations

from ciserver.lib import outbox
from ciserver.pipelines.models import Pipeline, State
from ciserver.projects.models import Project


def wake_group(pipeline: Pipeline) -> None:
    """Wake a worker for the next of its group, which waited for it."""
    if pipeline.group and pipeline.waits:
        waiting = Pipeline.objects.filter(project=pipeline.project_id, group=pipeline.group)
        queued = waiting.filter(state=State.QUEUED).order_by("number")
        # Both may begin now, if the first of all is not protected.
        for following in filter(None, {queued.first(), queued.filter(protected=True).first()}):
            outbox.promise("pipeline.queued", following.pk)


def must_wait(pipeline_id: int) -> bool:
    """Whether another of its group comes first. Call in a transaction: the project's row is the
    lock of its groups, so that of two that ask at once one sees the other."""
    row = Pipeline.objects.filter(pk=pipeline_id, waits=True).exclude(group="").first()
    if row is None:
        return False
    Project.objects.select_for_update().get(pk=row.project_id)
    return row.ahead is not None
