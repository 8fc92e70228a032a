"""What people ask of their own accounts."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from ciserver.accounts.models import AuditCheck, AuditEntry, Scope, Token, User
from ciserver.lib.problems import Refused

log = logging.getLogger(__name__)


USUAL_LIFETIME = timedelta(days=90)


def usual_lifetime(by: Token | None) -> timedelta:
    """How long a token lives when nobody says: 90 days, or as long as the one that makes it."""
    if by and by.expires_at:
        # A second less, for it begins a moment later.
        return min(USUAL_LIFETIME, by.expires_at - timezone.now() - timedelta(seconds=1))
    return USUAL_LIFETIME


def projects_of(user: User) -> QuerySet[Any]:
    """Those that ``user`` may see, reached by the rows' own relation: their app is above."""
    projects: Any = Token._meta.get_field("project").related_model
    found: QuerySet[Any] = projects.objects.visible_to(user)
    return found


@transaction.atomic
def make_token(
    *,
    user: User,
    name: str,
    scope: Scope,
    lifetime: timedelta | None,
    by: Token | None = None,
    project: str = "",
) -> tuple[Token, str]:
    """A new token of ``user`` and its text, which cannot be read again. ``project`` is the name
    of the only one that it opens; empty: all that ``user`` may see.

    ``by`` is the token that asks, if one does: what it makes ends no later than itself, or a
    token that leaked would live for ever in its children. Raises Refused.
    """
    if by and by.expires_at and (lifetime is None or timezone.now() + lifetime > by.expires_at):
        raise Refused(
            f"A token made by “{by.name}” must end by {by.expires_at:%F %R} UTC.",
            code="token-outlives-maker",
            hint="Ask for fewer days, or sign in and make it on the page /tokens/.",
        )
    only = projects_of(user).filter(slug=project).first() if project else None
    if project and only is None:
        raise Refused(
            f"There is no project {project!r}, or you may not see it.",
            code="token.project",
            hint="Name one of yours.",
            status=400,
        )
    token, text = Token.make(user=user, name=name, scope=scope, lifetime=lifetime, project=only)
    limit = {"project": project} if project else {}
    AuditEntry.record(
        actor=user.username, action="token.make", target=str(token), scope=token.scope, **limit
    )
    return token, text


@transaction.atomic
def revoke_token(*, token: Token, by: User) -> None:
    """End a token at once."""
    AuditEntry.record(actor=by.username, action="token.revoke", target=str(token))
    token.delete()


def check_audit() -> AuditCheck:
    """Look through the whole audit log and keep what was found. A chore.

    The chain shows what was changed, removed or put in between; what the last check saw shows
    whether entries are missing at the end.
    """
    before = AuditCheck.objects.first()
    last = AuditEntry.objects.first()
    problem = ""
    if at := AuditEntry.broken_at():
        problem = f"The entry of {at:%Y-%m-%d %H:%M:%S} UTC does not fit the one before it."
    elif before and before.last_id and not _still_there(before):
        problem = f"The last entry that was there on {before.at:%Y-%m-%d %H:%M:%S} UTC is gone."
    fields = {"at": timezone.now(), "entries": AuditEntry.objects.count(), "problem": problem}
    if problem:
        log.error("the audit log is not what was written: %s", problem)
        fields |= {"last_id": before.last_id, "last_digest": before.last_digest} if before else {}
    else:
        fields |= {"last_id": last.pk if last else 0, "last_digest": last.digest if last else ""}
    none_yet = {"last_id": 0, "last_digest": ""}
    row, _ = AuditCheck.objects.update_or_create(
        pk=1, defaults=fields, create_defaults=none_yet | fields
    )
    return row


def _still_there(check: AuditCheck) -> bool:
    return AuditEntry.objects.filter(pk=check.last_id, digest=check.last_digest).exists()
