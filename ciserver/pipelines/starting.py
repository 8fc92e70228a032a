"""Starting a pipeline without a push: by a person with inputs, or by the time of day."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from shlex import quote
from typing import Any

from django.db import transaction
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib.problems import Refused
from ciserver.pipelines.definition import Definition, DefinitionError
from ciserver.pipelines.definitions_at import definition_at
from ciserver.pipelines.models import Event, Pipeline, Schedule
from ciserver.pipelines.services import queue
from ciserver.pipelines.starts import BadInput, next_after, read_inputs
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require
from ciserver.repositories import git
from ciserver.repositories.errors import RepositoryError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Head:
    """What a branch or tag is at, as Gantry knows it, and what can be said to its pipelines."""

    ref: str
    info: git.CommitInfo
    definition: Definition

    @property
    def name(self) -> str:
        return self.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


def head_of(project: Project, name: str) -> Head:
    """The branch or tag ``name`` ("main", "refs/tags/v1"; empty is the default branch).

    Asks Git: call it before a transaction, not in one. Raises Refused: it is not there, or its
    gantry.yml has a mistake.
    """
    name = name or project.default_branch
    refs = [name] if name.startswith("refs/") else [f"refs/heads/{name}", f"refs/tags/{name}"]
    # A fork's commit, which the mirror has as refs/pull/7/head, is none of the project's own.
    refs = [ref for ref in refs if ref.startswith(("refs/heads/", "refs/tags/"))]
    place = git.git_dir(project)
    try:
        found = git.heads(place, *refs) if refs and place.is_dir() else {}
        ref = next((ref for ref in refs if ref in found), "")
        if not ref:
            raise Refused(
                f"{project} has no branch or tag {name!r}.",
                code="start.ref",
                hint="Push it first, or name another.",
                status=400,
            )
        # Git lets no branch be at anything but a commit; a tag may be at a tag.
        commit = found[ref] if ref.startswith("refs/heads/") else git.peel(place, found[ref])
        return Head(ref, git.commit_info(place, commit), definition_at(project, commit))
    except DefinitionError as error:
        hint = "Mend it and push; `gantry lint` tells every mistake of the file."
        raise Refused(str(error), code="start.definition", hint=hint, status=400) from None
    except RepositoryError as error:
        hint = "Name a branch or a tag of the project, such as main."
        raise Refused(str(error), code="start.ref", hint=hint, status=400) from None


def role_to_start(project: Project, ref: str) -> Role:
    """Who may start ``ref`` (a full one): as who may push to it, for a pipeline of a protected ref
    writes what all others trust, and whoever starts it chooses its inputs."""
    return Role(project.push_role) if project.protects(ref) else Role.DEVELOPER


def start(
    *, project: Project, user: Any, ref: str, inputs: Mapping[str, str], event: Event
) -> Pipeline:
    """Queue a pipeline of what ``ref`` is at. Needs ``role_to_start``. Raises Refused."""
    require(user, project, Role.DEVELOPER)
    head = head_of(project, ref)
    require(user, project, role_to_start(project, head.ref))
    try:
        values = read_inputs(head.definition.inputs, inputs)
    except BadInput as error:
        raise Refused(
            f"The input {error.name} cannot be used: {error}.",
            code="start.input",
            hint=f"See which there are: gantry start {project} --ref {quote(head.name)} --inputs",
            status=400,
        ) from None
    with transaction.atomic():
        pipeline = _queue(project, head, values, event, user.get_username())
        AuditEntry.record(
            actor=user.get_username(), action="pipeline.start", target=str(pipeline), ref=head.ref
        )
    return pipeline


def start_scheduled() -> int:
    """Start what is due by ``schedule:``; what was missed while nobody looked, once. How many."""
    started = 0
    due = Schedule.objects.filter(next_at__lte=timezone.now(), project__archived_at=None)
    for row in due.select_related("project"):
        try:
            started += _start_row(row)
        except Exception:
            # One project's trouble must not keep the others' schedules from starting.
            log.exception("the schedule %s of %s could not be started", row.cron, row.project)
    return started


def _start_row(row: Schedule) -> int:
    now = timezone.now()
    following = next_after(row.cron, now)
    # Any number of schedulers may look: one of them moves the row on and starts it.
    mine = Schedule.objects.filter(pk=row.pk, next_at=row.next_at)
    try:
        head = head_of(row.project, "")
        values = read_inputs(head.definition.inputs, row.inputs)
    except (Refused, BadInput) as error:
        mine.update(next_at=following, last_at=now, trouble=str(error)[:300])
        return 0
    with transaction.atomic():
        if not mine.update(next_at=following, last_at=now, trouble=""):
            return 0
        pipeline = _queue(row.project, head, values, Event.SCHEDULE, row.cron)
        Schedule.objects.filter(pk=row.pk).update(pipeline=pipeline)
    return 1


def _queue(
    project: Project, head: Head, inputs: Mapping[str, str], event: Event, by: str
) -> Pipeline:
    return queue(
        project=project,
        commit=head.info.sha,
        ref=head.ref,
        definition=head.definition,
        title=head.info.subject[:300],
        author=head.info.author[:200],
        committed_at=head.info.committed_at,
        event=event,
        started_by=by[:150],
        inputs=inputs,
    )
