"""What people ask of projects."""

from __future__ import annotations

import re

from django.db import transaction

from ciserver.accounts.models import AuditEntry, User
from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.projects import origins
from ciserver.projects.models import SLUG, Membership, Project, Role


@transaction.atomic
def create(*, slug: str, owner: User, description: str = "", clone_url: str = "") -> Project:
    """A new project that ``owner`` owns. Raises Refused for an unfit name or repository."""
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
        origins.check(clone_url)
    project = Project.objects.create(slug=slug, description=description, clone_url=clone_url)
    Membership.objects.create(project=project, user=owner, role=Role.OWNER)
    AuditEntry.record(actor=owner.username, action="project.create", target=slug)
    return project


@transaction.atomic
def renew_hook_secret(*, project: Project, user: User) -> Secret:
    """A new webhook secret in place of the old one. Needs the role maintainer."""
    require(user, project, Role.MAINTAINER)
    AuditEntry.record(actor=user.username, action="project.hook-secret", target=project.slug)
    return project.renew_hook_secret()


def require(user: object, project: Project, role: Role) -> None:
    """Raise Refused unless ``user`` has at least ``role`` in ``project``."""
    if not project.allows(user, role):
        raise Refused(
            f"This needs the role {role.label} in {project}.",
            code="role",
            hint="Ask an owner of the project.",
            status=403,
        )
