"""What people ask of their own accounts."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction

from ciserver.accounts.models import AuditEntry, Scope, Token, User


@transaction.atomic
def make_token(
    *, user: User, name: str, scope: Scope, lifetime: timedelta | None
) -> tuple[Token, str]:
    """A new token of ``user`` and its text, which cannot be read again."""
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
