"""What people ask of projects."""

from __future__ import annotations

import re

from django.db import transaction

from ciserver.accounts.models import AuditEntry, User
from ciserver.lib.crypto import Secret
from ciserver.lib.masking import LEAST
from ciserver.lib.problems import Refused
from ciserver.projects import origins
from ciserver.projects.models import (
    SECRET_NAME,
    SLUG,
    Membership,
    Project,
    ProjectSecret,
    Role,
)

MOST_SECRET = 64 * 1024
LEAST_HOOK_SECRET, MOST_HOOK_SECRET = 16, 500


@transaction.atomic
def create(*, slug: str, owner: User, description: str = "", clone_url: str = "") -> Project:
    """A new project that ``owner`` owns. Raises Refused for an unfit name or repository."""
    if owner.limited_to:
        raise Refused(
            "A token that is limited to one project makes no other.",
            code="role",
            hint="Use one that is not.",
            status=403,
        )
    if not re.fullmatch(SLUG, slug):
        raise Refused(
            f"{slug!r} cannot be a project's name.",
            code="project.name",
            hint="Use up to 63 lower-case letters, digits and '-'.",
            status=400,
        )
    if Project.objects.filter(slug=slug).exists():
        raise Refused(
            f"There is a project {slug!r} already.",
            code="project.exists",
            hint="Choose another name.",
        )
    if clone_url:
        clone_url = origins.normal(clone_url)
        origins.check(clone_url, ssh=True)
    project = Project.objects.create(slug=slug, description=description, clone_url=clone_url)
    Membership.objects.create(project=project, user=owner, role=Role.OWNER)
    AuditEntry.record(actor=owner.username, action="project.create", target=slug)
    return project


@transaction.atomic
def renew_hook_secret(
    *, project: Project, user: User, keep_old: bool = True, value: Secret | None = None
) -> Secret:
    """A new webhook secret; the one before it counts for a week more unless it is not kept.

    ``value`` is one that the forge made. Needs the role maintainer. Raises Refused.
    """
    require(user, project, Role.MAINTAINER)
    if value and not LEAST_HOOK_SECRET <= len(value.reveal()) <= MOST_HOOK_SECRET:
        raise Refused(
            f"A webhook secret has {LEAST_HOOK_SECRET} to {MOST_HOOK_SECRET} characters.",
            code="hook-secret",
            hint="Enter the one that the forge made, or have Gantry make one.",
            status=400,
        )
    AuditEntry.record(actor=user.username, action="project.hook-secret", target=project.slug)
    return project.renew_hook_secret(keep_old=keep_old, value=value)


@transaction.atomic
def end_old_hook_secret(*, project: Project, user: User) -> None:
    """The webhook secret before this one counts no more from now on. Needs the role maintainer.

    Raises Refused when there is none that counts.
    """
    require(user, project, Role.MAINTAINER)
    if not project.old_hook_secret_counts:
        raise Refused(
            f"{project} has no earlier webhook secret that still counts.",
            code="hook-secret",
            hint="Make a new one if the present one leaked, and end the present one with it.",
        )
    project.end_old_hook_secret()
    AuditEntry.record(actor=user.username, action="project.hook-secret.end", target=project.slug)


@transaction.atomic
def change(
    *,
    project: Project,
    user: User,
    description: str | None = None,
    cancel_superseded: bool | None = None,
    concurrency: int | None = None,
) -> Project:
    """What it is said to be, and how its pipelines are queued; None leaves a value. Needs the role
    maintainer."""
    require(user, project, Role.MAINTAINER)
    changes: dict[str, list[object]] = {}
    for name, value in (
        ("description", description),
        ("cancel_superseded", cancel_superseded),
        ("concurrency", concurrency),
    ):
        before = getattr(project, name)
        if value is not None and value != before:
            changes[name] = [before, value]
            setattr(project, name, value)
    if changes:
        project.save(update_fields=list(changes))
        AuditEntry.record(
            actor=user.username, action="project.change", target=project.slug, **changes
        )
    return project


@transaction.atomic
def set_secret(*, project: Project, user: User, name: str, value: Secret) -> ProjectSecret:
    """Make or replace a secret. Needs the role maintainer. Raises Refused."""
    require(user, project, Role.MAINTAINER)
    if not re.fullmatch(SECRET_NAME, name):
        raise Refused(
            f"{name!r} cannot be a secret's name.",
            code="secret.name",
            hint="It becomes a variable: letters, digits and '_', not beginning with a digit.",
            status=400,
        )
    check_secret(value.reveal())
    row = ProjectSecret.objects.filter(project=project, name=name).first()
    action = "project.secret.replace" if row else "project.secret.set"
    row = row or ProjectSecret(project=project, name=name)
    row.updated_by = user.username
    row.put(value)
    row.save()
    AuditEntry.record(actor=user.username, action=action, target=f"{project}/{name}")
    return row


@transaction.atomic
def remove_secret(*, secret: ProjectSecret, user: User) -> None:
    """Needs the role maintainer. Jobs that name it fail from now on, and say so."""
    require(user, secret.project, Role.MAINTAINER)
    target = f"{secret.project}/{secret.name}"
    AuditEntry.record(actor=user.username, action="project.secret.remove", target=target)
    secret.delete()


def check_secret(value: str) -> None:
    """Raise Refused for what could not be masked or given to anybody."""
    hint = ""
    if len(value.strip()) < LEAST:
        hint = f"It needs {LEAST} characters: a shorter one could not be masked in logs."
    elif len(value.encode()) > MOST_SECRET:
        hint = f"It may have {MOST_SECRET // 1024} KiB at most."
    elif "\0" in value:
        hint = "It holds a NUL character, which no variable can."
    if hint:
        raise Refused("This value cannot be a secret.", code="secret.value", hint=hint, status=400)


def require(user: object, project: Project, role: Role) -> None:
    """Raise Refused unless ``user`` has at least ``role`` in ``project``, and it may be changed:
    one that is archived is only read."""
    require_role(user, project, role)
    if role > Role.VIEWER:
        require_open(project)


def require_open(project: Project) -> None:
    """Raise Refused for a project that is archived."""
    if not Project.objects.open().filter(pk=project.pk).exists():
        raise Refused(
            f"{project} is archived: it is only read.",
            code="project.archived",
            hint=f"An owner opens it again on its page, or by: gantry restore {project}",
        )


def require_role(user: object, project: Project, role: Role) -> None:
    """Raise Refused unless ``user`` has at least ``role`` in ``project``, archived or not."""
    if not project.allows(user, role):
        raise Refused(
            f"This needs the role {role.label} in {project}.",
            code="role",
            hint="Ask an owner of the project.",
            status=403,
        )
