"""What a person, a webhook or a release asks of pipelines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib import outbox
from ciserver.lib.problems import Refused
from ciserver.lib.states import IllegalMove, move
from ciserver.pipelines import events
from ciserver.pipelines.definition import Definition
from ciserver.pipelines.definitions_at import UNKNOWN, usable_definition
from ciserver.pipelines.groups import wake_group
from ciserver.pipelines.models import PIPELINE_MOVES, Event, Pipeline, State
from ciserver.pipelines.starts import defaults, next_after
from ciserver.pipelines.triggers import trigger_of
from ciserver.projects.models import Project


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
    started_by: str = "",
    inputs: Mapping[str, str] | None = None,
    definition: Definition | None = None,
) -> Pipeline:
    """A new pipeline for ``commit``, numbered within its project, and the promise to run it.

    What its gantry.yml says of groups holds from now on, also for those that wait for a worker.

    ``event`` is a tag's or a push's, as ``ref`` has it, unless given. Nothing of a fork is
    protected, whatever its ref is called. ``definition`` is the commit's gantry.yml from who has
    read it already; who calls this in a transaction has: nobody should wait for Git under a lock.
    """
    if definition is None:
        definition = usable_definition(project, commit)
    with transaction.atomic():
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
            started_by=started_by,
            inputs=dict(inputs or {}),
        )
        _join_group(pipeline, definition)
        of_default = not from_fork and ref == f"refs/heads/{project.default_branch}"
        if of_default and definition is not UNKNOWN:  # then times stay, and say what is wrong
            keep_schedules(project, definition)
        if project.cancel_superseded and pipeline.event in {Event.PUSH, Event.PULL_REQUEST}:
            # Of the same branch or pull request; a second run of one commit is nobody's successor.
            before = Pipeline.objects.filter(ref=ref, event=pipeline.event).exclude(commit=commit)
            supersede(before, newer=pipeline)
        outbox.promise("pipeline.queued", pipeline.pk)
        transaction.on_commit(events.publish_matrix)
    return pipeline


@transaction.atomic
def cancel(*, pipeline: Pipeline, by: str) -> Pipeline:
    """Ask that ``pipeline`` ends. A queued one ends at once, a running one within two seconds."""
    if pipeline.finished:
        raise Refused(
            f"Pipeline {pipeline} has already ended.",
            code="pipeline.finished",
            hint="There is nothing to cancel. What it released is put back by rolling back.",
        )
    AuditEntry.record(actor=by, action="pipeline.cancel", target=str(pipeline))
    _end(pipeline, by)
    return pipeline


def cancel_all(*, project: Project, by: str) -> None:
    """Ask that all pipelines of ``project`` end. Inside the caller's transaction."""
    for pipeline in project.pipelines.filter(state__in=(State.QUEUED, State.RUNNING)):
        _end(pipeline, by)


def _end(pipeline: Pipeline, by: str) -> None:
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
        wake_group(pipeline)
    transaction.on_commit(lambda: events.publish(pipeline.pk))


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
    if newer := _newer_of_group(pipeline):
        refused = f"#{newer.number} took the place of {pipeline} in the group, and has not ended."
        hint = "Wait for it, or cancel it first."
        raise Refused(refused, code="pipeline.run-again", hint=hint)
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
        hint = "Follow that run, or cancel it first."
        raise Refused(refused, code="pipeline.run-again", hint=hint) from None
    AuditEntry.record(
        actor=by, action="pipeline.run-again", target=str(pipeline), only_failed=only_failed
    )
    outbox.promise("pipeline.queued", pipeline.pk)
    transaction.on_commit(lambda: events.publish(pipeline.pk))
    transaction.on_commit(events.publish_matrix)
    return pipeline


def supersede(older: QuerySet[Pipeline], *, newer: Pipeline) -> None:
    """Cancel those of ``older`` that have not ended, for ``newer`` takes their place."""
    by = f"#{newer.number}, which superseded it"
    unfinished = older.filter(project=newer.project_id, number__lt=newer.number)
    rows = unfinished.filter(state__in=[State.QUEUED, State.RUNNING], cancel_requested_by="")
    for pipeline in rows:
        _end(pipeline, by)


def keep_schedules(project: Project, definition: Definition) -> None:
    """Make the rows say what ``schedule:`` says; a time that stays keeps its place, and one that is
    written twice is one."""
    wanted = {_told(entry.cron, entry.inputs): entry for entry in definition.schedule}
    for row in project.schedules.all():
        if wanted.pop(_told(row.cron, row.inputs), None) is None:
            row.delete()
    for entry in wanted.values():
        at = next_after(entry.cron, timezone.now())
        project.schedules.create(cron=entry.cron, inputs=entry.inputs, next_at=at)


def _told(cron: str, inputs: Mapping[str, str]) -> str:
    return json.dumps([cron, inputs], sort_keys=True)  # a database may keep another order


def _join_group(pipeline: Pipeline, definition: Definition) -> None:
    wanted = definition.concurrency
    if wanted is None:
        return
    inputs = {**defaults(definition.inputs), **pipeline.inputs}
    group = wanted.group_of(trigger_of(pipeline, inputs).names)
    # What a fork writes into its file must not touch the project's own pipelines.
    pipeline.group = f"{pipeline.lane}:{group}" if pipeline.from_fork else group
    pipeline.waits = not wanted.cancel
    pipeline.save(update_fields=["group", "waits"])
    if wanted.cancel and group:
        older = Pipeline.objects.filter(group=pipeline.group)
        # Nor may what anybody pushes end what the protected refs are about.
        supersede(older if pipeline.protected else older.filter(protected=False), newer=pipeline)


def _newer_of_group(pipeline: Pipeline) -> Pipeline | None:
    """One that has not ended, where of the group only the newest is wanted: beside it there would
    be two at once."""
    if not pipeline.group or pipeline.waits:
        return None
    group = Pipeline.objects.filter(project=pipeline.project_id, group=pipeline.group)
    if pipeline.protected:
        group = group.filter(protected=True)
    unfinished = group.filter(number__gt=pipeline.number, state__in=[State.QUEUED, State.RUNNING])
    return unfinished.order_by("number").first()


def _create(project: Project, **fields: Any) -> Pipeline:
    # The project's row is the lock that keeps numbers without a gap or a twin.
    Project.objects.select_for_update().get(pk=project.pk)
    last = project.pipelines.aggregate(last=Max("number"))["last"] or 0
    return Pipeline.objects.create(project=project, number=last + 1, **fields)
