"""What owners ask for at the end: to archive a project, to delete it, to remove an environment.

An archived project is only read: nothing is pushed, built or deployed, and what serves goes on
serving. A project that is deleted is archived first and can be restored for GRACE; then a worker
takes away all of it (see ``removal``). An environment has no such time: its containers are what
it is, and they end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib import outbox
from ciserver.lib.problems import Refused
from ciserver.pipelines import services as pipelines
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require_role
from ciserver.releases import policy, queue
from ciserver.releases.models import UNFINISHED, Deployment, DeploymentState, Environment

GRACE = timedelta(days=7)
PROJECT, ENVIRONMENT = "project.delete", "environment.remove"


@transaction.atomic
def archive(*, project: Project, user: Any) -> Project:
    """End what is queued or built, and let nothing more begin. Needs the role owner.
    Raises Refused while a deployment goes on."""
    row = _locked(project, user)
    if row.archived_at:
        raise Refused(
            f"{row} is archived already, by {row.archived_by}.",
            code="project.archived",
            hint=f"To open it again: gantry restore {row}",
        )
    _close(row, user.get_username())
    AuditEntry.record(actor=row.archived_by, action="project.archive", target=row.slug)
    return row


@transaction.atomic
def restore(*, project: Project, user: Any) -> Project:
    """Undo ``archive``, and ``delete`` while its time has not come. Needs the role owner.
    Raises Refused."""
    row = _locked(project, user)
    if not row.archived_at:
        raise Refused(
            f"{row} is not archived.", code="project.open", hint="There is nothing to restore."
        )
    _require_there(row)
    row.archived_at, row.archived_by, row.delete_at = None, "", None
    row.save(update_fields=["archived_at", "archived_by", "delete_at"])
    AuditEntry.record(actor=user.get_username(), action="project.restore", target=row.slug)
    return row


@transaction.atomic
def delete(*, project: Project, user: Any, confirm: str, now: bool = False) -> Project:
    """Archive ``project`` and have it deleted after GRACE, or with ``now`` at once.

    ``confirm`` is its name, typed. From now on ``archived_by`` is ``user``, whoever archived it
    before: who has it deleted gives up its addresses. Needs the role owner. Raises Refused.
    """
    row = _locked(project, user)
    _confirmed(confirm, row.slug)
    _require_there(row)
    name = user.get_username()
    if not row.archived_at:
        _close(row, name)
    row.archived_by = name
    row.delete_at = timezone.now() + (timedelta(0) if now else GRACE)
    row.save(update_fields=["archived_by", "delete_at"])
    AuditEntry.record(
        actor=name, action="project.delete", target=row.slug, at=row.delete_at.isoformat()
    )
    if now:
        outbox.promise(PROJECT, row.pk)
    return row


@transaction.atomic
def remove(*, environment: Environment, user: Any, confirm: str) -> Environment:
    """Have a worker stop what serves ``environment`` and forget it: its domains, secrets,
    variables and history. ``confirm`` is PROJECT@NAME, typed. Needs the role owner.

    Where it had to run before, and what comes after asks for approvals or soak time, what ``user``
    asks for there waits for another owner's word; and no place that is the first now gets releases
    by itself because it was a later one that does. Raises Refused while a deployment goes on
    there."""
    require_role(user, environment.project, Role.OWNER)
    row = Environment.objects.select_for_update().get(pk=environment.pk)
    _confirmed(confirm, str(row))
    if row.removed_at:
        raise Refused(
            f"{row} is being removed already, as {row.removed_by} asked.",
            code="environment.removed",
            hint=row.removal_problem or "A worker is at it.",
        )
    name = user.get_username()
    _end_deployments(Deployment.objects.filter(environment=row), f"{row} is removed by {name}.")
    row.removed_at, row.removed_by = timezone.now(), name
    row.save(update_fields=["removed_at", "removed_by"])
    AuditEntry.record(
        actor=name,
        action="environment.remove",
        target=str(row),
        hosts=sorted(row.hosts.values_list("name", flat=True)),
        **_leave_gap(row, name),
    )
    outbox.promise(ENVIRONMENT, row.pk)
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """What the removal of an environment opens: releases had to run there before they went on to
    ``after``. ``confirmed`` says that another owner has a word in it, and ``by_itself`` that every
    new release would go there now."""

    after: Environment
    confirmed: bool
    by_itself: bool


def gap_of(environment: Environment, name: str) -> Gap | None:
    """What is open once ``name`` has removed it; None after the last one."""
    chain = Environment.objects.filter(project=environment.project_id, removed_at=None)
    chain = chain.exclude(pk=environment.pk)
    after = chain.filter(position__gt=environment.position).order_by("position").first()
    if after is None:
        return None
    first = not chain.filter(position__lt=environment.position).exists()
    return Gap(
        after=after,
        confirmed=policy.is_guarded(policy.demanded(after, name)),
        by_itself=first and after.auto,
    )


def _leave_gap(row: Environment, name: str) -> dict[str, Any]:
    """Nobody gets round the place after ``row`` by removing ``row``; for the audit."""
    gap = gap_of(row, name)
    if gap is None:
        return {}
    after = Environment.objects.select_for_update().get(pk=gap.after.pk)
    if gap.confirmed:
        own = after.kept_policy.get(name, {})
        names = sorted({*own.get(policy.SKIPPED, ()), row.name})
        after.kept_policy = after.kept_policy | {name: own | {policy.SKIPPED: names}}
    after.auto = after.auto and not gap.by_itself
    after.save(update_fields=["kept_policy", "auto"])
    told: dict[str, Any] = {"after": after.name, "to_confirm": gap.confirmed}
    return told | ({"auto": [True, False]} if gap.by_itself else {})


def _locked(project: Project, user: Any) -> Project:
    require_role(user, project, Role.OWNER)
    return Project.objects.select_for_update().get(pk=project.pk)


def _require_there(row: Project) -> None:
    if row.going:
        raise Refused(
            f"{row} is being deleted.",
            code="project.going",
            hint="A worker is at it, and what is gone does not come back. See the audit log.",
        )


def _confirmed(given: str, name: str) -> None:
    if given.strip() != name:
        raise Refused(
            f"To be sure, this needs the name of what goes: {name}",
            code="confirm",
            hint=f"Give it exactly so: confirm={name}",
            status=400,
        )


def _close(row: Project, name: str) -> None:
    words = f"{row} is archived by {name}."
    # What is being taken up right now has begun before, and is seen, or sees that it is archived.
    list(Environment.objects.select_for_update().filter(project=row).order_by("pk"))
    _end_deployments(Deployment.objects.filter(environment__project=row), words)
    pipelines.cancel_all(project=row, by=name)
    row.archived_at, row.archived_by = timezone.now(), name
    row.save(update_fields=["archived_at", "archived_by"])


def _end_deployments(rows: Any, words: str) -> None:
    for deployment in rows.filter(state__in=UNFINISHED).select_related("environment", "release"):
        if deployment.state == DeploymentState.RUNNING:
            raise Refused(
                f"{deployment.release.name} is on its way to {deployment.environment}.",
                code="deployment.goes-on",
                hint=f"Wait until it ends, or cancel it: gantry cancel {deployment.environment}",
            )
        queue.cancel(deployment, words)
