"""Secrets of an environment: files and variables of its containers that nobody reads again."""

from __future__ import annotations

import re
from typing import Any

from django.db import transaction

from ciserver.accounts.models import AuditEntry
from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.projects.models import SECRET_NAME, Role
from ciserver.projects.services import check_secret, require
from ciserver.releases.models import Environment, EnvironmentSecret

MOST = 100


@transaction.atomic
def set_secret(
    *, environment: Environment, user: Any, name: str, value: Secret
) -> EnvironmentSecret:
    """Make or replace a secret; containers have it from the next deployment. Needs the role
    maintainer. What waits for approval there must be approved anew. Raises Refused."""
    require(user, environment.project, Role.MAINTAINER)
    if not re.fullmatch(SECRET_NAME, name) or name.startswith("GANTRY_") or name == "PORT":
        raise Refused(
            f"{name!r} cannot be a secret's name.",
            code="secret.name",
            hint="It becomes a variable: letters, digits and '_', not one that Gantry sets itself.",
            status=400,
        )
    check_secret(value.reveal())
    if name in environment.variables:
        raise Refused(
            f"{environment} has a variable {name} that everybody can read.",
            code="secret.variable",
            hint="Remove it there first.",
        )
    row = EnvironmentSecret.objects.filter(environment=environment, name=name).first()
    if row is None and environment.secrets.count() >= MOST:
        raise Refused(
            f"{environment} has {MOST} secrets already.",
            code="secret.most",
            hint="Remove one that nothing reads, or put several into one as JSON.",
            status=400,
        )
    action = "environment.secret.replace" if row else "environment.secret.set"
    row = row or EnvironmentSecret(environment=environment, name=name)
    row.updated_by = user.get_username()
    row.put(value)
    row.save()
    AuditEntry.record(actor=row.updated_by, action=action, target=f"{environment}/{name}")
    return row


@transaction.atomic
def remove_secret(*, secret: EnvironmentSecret, user: Any) -> None:
    """Containers have it until the next deployment. Needs the role maintainer."""
    require(user, secret.environment.project, Role.MAINTAINER)
    AuditEntry.record(
        actor=user.get_username(),
        action="environment.secret.remove",
        target=f"{secret.environment}/{secret.name}",
    )
    secret.delete()
