"""What administrators do with users, and people with their own accounts.

Nobody but its owner ever knows a password: a new user, and one who forgot it, gets a link that
works once and for three days (Django's PASSWORD_RESET_TIMEOUT).
"""

from __future__ import annotations

import re

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from ciserver.accounts import lock
from ciserver.accounts.models import AuditEntry, User
from ciserver.accounts.sessions import end_sessions
from ciserver.lib.problems import Refused

USER_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+@-]{0,62}"
# They stand for the service itself, in the audit log and where it is asked who did something.
RESERVED = {"gantry", "gantry-deploy", "console", "sign-in", "git", "somebody", "nobody"}


@transaction.atomic
def create(*, by: User, username: str, email: str = "", admin: bool = False) -> tuple[User, str]:
    """A new user without a password, and the link to set one. Raises Refused."""
    require_admin(by)
    if not re.fullmatch(USER_NAME, username) or username.lower() in RESERVED:
        raise Refused(
            f"{username!r} cannot be a user's name.",
            code="user.name",
            hint="Use up to 63 letters, digits and '_.+@-', beginning with a letter or digit.",
            status=400,
        )
    if User.objects.filter(username__iexact=username).exists():
        raise Refused(
            f"There is a user {username!r} already.", code="user.exists", hint="Choose another."
        )
    _check_email(email)
    user = User(username=username, email=email, is_superuser=admin, is_staff=admin)
    user.set_unusable_password()
    user.save()
    AuditEntry.record(actor=by.username, action="user.create", target=username, admin=admin)
    return user, password_link(user)


@transaction.atomic
def reset_password(*, user: User, by: User, end_tokens: bool = False) -> str:
    """Take the password away and end every session; returns the link to set another.

    A link that was made before works no more. Tokens go on unless they are ended, too.
    """
    require_admin(by)
    user = _locked(user)
    user.set_unusable_password()
    user.save(update_fields=["password"])
    end_sessions(user)
    lock.unlock(user.username)
    if end_tokens:
        user.tokens.all().delete()
    AuditEntry.record(
        actor=by.username, action="user.reset-password", target=user.username, tokens=end_tokens
    )
    return password_link(user)


@transaction.atomic
def disable(*, user: User, by: User) -> User:
    """Nothing of ``user`` works from now on: sessions and tokens are ended, not put to sleep."""
    require_admin(by)
    user = _locked(user)
    _keep_an_admin(user)
    user.is_active = False
    user.save(update_fields=["is_active"])
    end_sessions(user)
    user.tokens.all().delete()
    AuditEntry.record(actor=by.username, action="user.disable", target=user.username)
    return user


@transaction.atomic
def enable(*, user: User, by: User) -> User:
    """``user`` may sign in again, with the password that was; tokens must be made anew."""
    require_admin(by)
    user = _locked(user)
    user.is_active = True
    user.save(update_fields=["is_active"])
    AuditEntry.record(actor=by.username, action="user.enable", target=user.username)
    return user


@transaction.atomic
def set_admin(*, user: User, by: User, admin: bool) -> User:
    """Make ``user`` an administrator, or no longer one. Raises Refused for the last one."""
    require_admin(by)
    user = _locked(user)
    if not admin:
        _keep_an_admin(user)
    user.is_superuser = user.is_staff = admin
    user.save(update_fields=["is_superuser", "is_staff"])
    AuditEntry.record(actor=by.username, action="user.admin", target=user.username, admin=admin)
    return user


def change_password(
    *, user: User, old: str, new: str, address: str = "", keep_session: str | None = None
) -> None:
    """One's own. Other sessions end; tokens go on. Guesses of ``old`` count as guesses at signing
    in do, or a session left open would be a way around the lock. Raises Refused."""
    guess = lock.begin(user.username, address)
    if not user.check_password(old):
        lock.failed(guess, through="change of password")
        raise Refused(
            "The present password is not right.",
            code="password.old",
            hint="If it is forgotten, an administrator can make a link to set another.",
            status=400,
        )
    lock.passed(guess)
    try:
        validate_password(new, user)
    except ValidationError as error:
        raise Refused(
            "This cannot be the new password.",
            code="password.new",
            hint=" ".join(error.messages),
            status=400,
        ) from None
    with transaction.atomic():
        user.set_password(new)
        user.save(update_fields=["password"])
        end_sessions(user, but=keep_session)
        AuditEntry.record(actor=user.username, action="account.password", target=user.username)


@transaction.atomic
def end_session(*, user: User, name: str) -> bool:
    """End one of one's own sessions, named by ``Session.name``; False when it is not there."""
    for session in user.sessions.all():
        if session.name == name:
            session.delete()
            AuditEntry.record(
                actor=user.username, action="account.end-session", target=user.username
            )
            return True
    return False


def password_link(user: User) -> str:
    """Works once: its token covers the password that it replaces."""
    words = [urlsafe_base64_encode(force_bytes(user.pk)), default_token_generator.make_token(user)]
    return f"{settings.GANTRY.url}{reverse('set-password', args=words)}"


def require_admin(by: User) -> None:
    """Raise Refused for who is not an administrator."""
    if not (by.is_active and by.is_superuser):
        raise Refused(
            "This is for administrators.",
            code="admin",
            hint="Ask one of them; 'gantry admin' on the service's machine makes the first.",
            status=403,
        )


def _locked(user: User) -> User:
    """``user`` as of now. Administrators are locked: two who demote each other take turns."""
    list(User.objects.select_for_update().filter(is_superuser=True).values_list("pk"))
    return User.objects.select_for_update().get(pk=user.pk)


def _keep_an_admin(user: User) -> None:
    others = User.objects.filter(is_superuser=True, is_active=True).exclude(pk=user.pk)
    if user.is_superuser and user.is_active and not others.exists():
        raise Refused(
            f"{user.username} is the last administrator.",
            code="user.last-admin",
            hint="Make somebody else one first.",
        )


def _check_email(email: str) -> None:
    try:
        if email:
            validate_email(email)
    except ValidationError:
        raise Refused(
            f"{email!r} is no address of mail.",
            code="user.email",
            hint="Leave it empty, or write NAME@DOMAIN.",
            status=400,
        ) from None
