"""What owners ask for at the end: to archive a project, to delete it, to remove an environment.

An archived project is only read: nothing is pushed, built or deployed, and what serves goes on
serving. A project that is deleted is archived first and can be restored for GRACE; then a worker
takes away all of it (see ``removal``). An environment has no such time: its containers are what
it is, and they end.
"""

from __future__ import annotations

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
from ciserver.releases import queue
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
    Raises Refused while a deployment goes on there."""
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
    )
    outbox.promise(ENVIRONMENT, row.pk)
    return row


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
