"""People, their teams, sessions and tokens, and the record of what they did."""

from __future__ import annotations

import hashlib
import json
import secrets
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.contrib.sessions.base_session import AbstractBaseSession
from django.core.validators import RegexValidator
from django.db import connection, models, transaction
from django.utils import timezone

PREFIX = "gantry_"
AUDIT_LOCK = 0x6761756469  # any number that nothing else locks
TEAM_NAME = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"


class User(AbstractUser):
    """A person or a robot that signs in.

    ``limited_to`` is the key of the one project that a token opens which somebody shows; then
    ``is_superuser`` is False, and ``administers`` what it was. It is of that request alone.
    """

    limited_to: int | None = None
    administers = False

    def save(self, *args: Any, **options: Any) -> None:
        if self.limited_to:
            raise TypeError("A user as a limited token shows them is never saved.")
        super().save(*args, **options)

    def limit(self, project: int) -> None:
        self.limited_to, self.administers = project, self.is_superuser
        self.is_superuser = False

    class Meta:
        verbose_name = "user"


class Team(models.Model):
    """People who are members of projects together: see ciserver.projects.models.TeamMembership."""

    name = models.CharField(
        max_length=63, unique=True, validators=[RegexValidator(rf"^{TEAM_NAME}\Z")]
    )
    description = models.CharField(max_length=200, blank=True)
    members = models.ManyToManyField(User, blank=True, related_name="teams")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Session(AbstractBaseSession):
    """A browser that is signed in: Django's own row, and whose it is (see ``sessions.py``)."""

    user = models.ForeignKey(User, models.CASCADE, null=True, related_name="sessions")
    signed_in_at = models.DateTimeField(null=True)
    address = models.CharField(max_length=45, blank=True)
    agent = models.CharField(max_length=200, blank=True)

    @classmethod
    def get_session_store_class(cls) -> Any:
        from ciserver.accounts.sessions import SessionStore

        return SessionStore

    @property
    def name(self) -> str:
        """Tells it from others and opens nothing, as its key would."""
        return _digest(self.session_key)[:16]


class SignInFailure(models.Model):
    """A password that was wrong, or is being looked at: see ``lock.py``."""

    username = models.CharField(max_length=150)
    address = models.CharField(max_length=45)
    at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        indexes = [
            models.Index(fields=["username", "at"], name="failure_username"),
            models.Index(fields=["address", "at"], name="failure_address"),
        ]

    def __str__(self) -> str:
        return f"{self.username} from {self.address}"


def _nonce() -> str:
    return secrets.token_hex(8)


class IdempotentRequest(models.Model):
    """A write with an ``Idempotency-Key`` and what was answered: see ``idempotency.py``.

    ``status`` is empty while it is being done. ``nonce`` tells who made the row.
    """

    SEALED = {"sealed": "place"}

    caller = models.CharField(max_length=40)
    key = models.CharField(max_length=255)
    digest = models.CharField(max_length=64)
    nonce = models.CharField(max_length=16, default=_nonce)
    at = models.DateTimeField(db_index=True)
    status = models.PositiveSmallIntegerField(null=True)
    headers = models.JSONField(default=dict)
    sealed = models.TextField(blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["caller", "key"], name="one_request_of_key")]

    def __str__(self) -> str:
        return f"{self.key} of {self.caller}"

    @property
    def place(self) -> str:
        return f"accounts_idempotentrequest:{self.pk}:answer"


class Scope(models.TextChoices):
    READ = "read", "read everything the owner may read"
    WRITE = "write", "push, promote and change settings as the owner may"


class TokenQuerySet(models.QuerySet["Token"]):
    def find(self, text: str) -> Token | None:
        """The living token that ``text`` is, or None. Found by hash: no comparison leaks time."""
        return self._living(digest=_digest(text)) if text.startswith(PREFIX) else None

    def again(self, pk: int) -> Token | None:
        """The token of that key, unless it ended since it was shown."""
        return self._living(pk=pk)

    def _living(self, **which: Any) -> Token | None:
        now = timezone.now()
        token = self.select_related("user").filter(user__is_active=True, **which)
        living = token.filter(models.Q(expires_at=None) | models.Q(expires_at__gt=now)).first()
        if living and living.project_id:
            living.user.limit(living.project_id)
        return living


class Token(models.Model):
    """A bearer token. Only its hash is kept; the text is shown once, when it is made."""

    user = models.ForeignKey(User, models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=80)
    digest = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=16)
    scope = models.CharField(max_length=10, choices=Scope.choices, default=Scope.READ)
    # The only one that it opens. The app of projects is above this one: it is named, not imported.
    project = models.ForeignKey(
        "projects.Project", models.CASCADE, null=True, blank=True, related_name="tokens"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = TokenQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.name} ({self.hint}…)"

    @classmethod
    def make(
        cls,
        *,
        user: User,
        name: str,
        scope: Scope,
        lifetime: timedelta | None = None,
        project: Any = None,
    ) -> tuple[Token, str]:
        """A new token and its text, which cannot be read again."""
        text = PREFIX + secrets.token_urlsafe(30)
        token = cls.objects.create(
            user=user,
            name=name,
            scope=scope,
            project=project,
            digest=_digest(text),
            hint=text[: len(PREFIX) + 4],
            expires_at=timezone.now() + lifetime if lifetime else None,
        )
        return token, text

    def touch(self) -> None:
        """Note the use, at most once a minute."""
        now = timezone.now()
        if self.last_used_at is None or now - self.last_used_at > timedelta(minutes=1):
            Token.objects.filter(pk=self.pk).update(last_used_at=now)

    @property
    def may_write(self) -> bool:
        return self.scope == Scope.WRITE


class AuditEntry(models.Model):
    """Who did what, when. Append-only; each row's digest covers the one before it."""

    at = models.DateTimeField()
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=60)
    target = models.CharField(max_length=200)
    detail = models.JSONField(default=dict)
    digest = models.CharField(max_length=64)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.target}"

    def save(self, *args: Any, **options: Any) -> None:
        if not self._state.adding:
            raise TypeError("An entry of the audit log is never changed.")
        super().save(*args, **options)

    def delete(self, *args: Any, **options: Any) -> tuple[int, dict[str, int]]:
        raise TypeError("An entry of the audit log is never deleted.")

    @classmethod
    def record(cls, *, actor: str, action: str, target: str, **detail: Any) -> AuditEntry:
        with transaction.atomic():
            _wait_for_turn()
            last = cls.objects.order_by("-id").first()
            entry = cls(at=timezone.now(), actor=actor, action=action, target=target, detail=detail)
            entry.digest = entry.chained(last.digest if last else "")
            entry.save(force_insert=True)
        return entry

    def chained(self, previous: str) -> str:
        fields = [self.at.isoformat(), self.actor, self.action, self.target, self.detail]
        return hashlib.sha256(
            (previous + json.dumps(fields, sort_keys=True, default=str)).encode()
        ).hexdigest()

    @classmethod
    def broken_at(cls) -> datetime | None:
        """The time of the first row that does not fit the one before it, or None."""
        previous = ""
        for entry in cls.objects.order_by("id").iterator():
            if entry.digest != entry.chained(previous):
                return entry.at
            previous = entry.digest
        return None


class AuditCheck(models.Model):
    """How the audit log stood when it was last checked: one row, of the chore's."""

    at = models.DateTimeField()
    entries = models.PositiveBigIntegerField()
    last_id = models.BigIntegerField()
    last_digest = models.CharField(max_length=64)
    problem = models.CharField(max_length=300, blank=True)

    def __str__(self) -> str:
        return self.problem or f"{self.entries} entries, all as they were written"


def _wait_for_turn() -> None:
    """One writer of the chain at a time. A row lock would not do: two that wait for the same last
    row would both go on from it. SQLite's transactions take turns by themselves."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [AUDIT_LOCK])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
