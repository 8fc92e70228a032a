"""What people ask of their own accounts."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import transaction
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


@transaction.atomic
def make_token(
    *, user: User, name: str, scope: Scope, lifetime: timedelta | None, by: Token | None = None
) -> tuple[Token, str]:
    """A new token of ``user`` and its text, which cannot be read again.

    ``by`` is the token that asks, if one does: what it makes ends no later than itself, or a
    token that leaked would live for ever in its children. Raises Refused.
    """
    if by and by.expires_at and (lifetime is None or timezone.now() + lifetime > by.expires_at):
        raise Refused(
            f"A token made by “{by.name}” must end by {by.expires_at:%F %R} UTC.",
            code="token-outlives-maker",
            hint="Ask for fewer days, or sign in and make it on the page /tokens/.",
        )
    token, text = Token.make(user=user, name=name, scope=scope, lifetime=lifetime)
    AuditEntry.record(
        actor=user.username, action="token.make", target=str(token), scope=token.scope
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
