"""What is told to others: commit statuses of forges, events, webhooks that go out."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from ciserver.lib.crypto import Secret, seal, unseal
from ciserver.projects.models import Project


class State(models.TextChoices):
    """Of a commit, in no forge's own words."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"


class StatusTarget(models.Model):
    """The forge that shows how a project's commits fare. The token is write-only."""

    SEALED = {"token_sealed": "token_place"}

    project = models.OneToOneField(Project, models.CASCADE, related_name="status_target")
    forge = models.CharField(max_length=20)
    api_url = models.CharField(max_length=300)
    repository = models.CharField(max_length=300)
    token_sealed = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)
    paused_until = models.DateTimeField(null=True, blank=True)  # the forge's rate limit

    def __str__(self) -> str:
        return f"{self.forge} {self.repository}"

    @property
    def token_place(self) -> str:
        return f"notifications_statustarget:{self.project_id}:token"

    @property
    def token(self) -> Secret:
        """Raises SealBroken."""
        return unseal(self.token_sealed, self.token_place)

    def put(self, token: Secret) -> None:
        self.token_sealed = seal(token, self.token_place)


class CommitStatus(models.Model):
    """How one pipeline stands, and whether its forge knows: the row is the outbox.

    It is due while ``sent`` is not ``state`` and ``next_at`` has come; ``next_at`` is None when
    it was given up.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="commit_statuses")
    pipeline = models.PositiveIntegerField()  # its number
    sha = models.CharField(max_length=64)
    of = models.CharField(max_length=10)  # the pipeline's own state that this tells of
    state = models.CharField(max_length=10, choices=State.choices)
    description = models.CharField(max_length=140)
    url = models.CharField(max_length=500)
    sent = models.CharField(max_length=10, blank=True)
    sent_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(null=True, db_index=True)
    error = models.TextField(blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-updated_at"]
        verbose_name_plural = "commit statuses"
        constraints = [
            models.UniqueConstraint(fields=["project", "pipeline"], name="status_of_pipeline")
        ]

    def __str__(self) -> str:
        return f"{self.project} #{self.pipeline}: {self.state}"


class Event(models.Model):
    """That a pipeline, release or deployment came into a state: what webhooks and streams tell.

    Found by looking (``ciserver.releases.events``), so that nothing is lost with a process. ``id``
    grows; ``data`` is what the API tells of it. ``at`` is when it was noted.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="events")
    type = models.CharField(max_length=40)  # such as pipeline.failed
    object_id = models.BigIntegerField()
    turn = models.PositiveIntegerField(default=0)  # which attempt, of what may run again
    data = models.JSONField(default=dict)
    at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["type", "object_id", "turn"], name="one_event_of_state")
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.object_id}"


class Endpoint(models.Model):
    """An address that is told of a project's events. ``types`` empty: of all."""

    SEALED = {"secret_sealed": "secret_place", "old_secret_sealed": "old_secret_place"}

    project = models.ForeignKey(Project, models.CASCADE, related_name="endpoints")
    url = models.CharField(max_length=500)
    types = models.JSONField(default=list, blank=True)
    active = models.BooleanField(default=True)
    secret_sealed = models.TextField(blank=True)
    old_secret_sealed = models.TextField(blank=True)  # signs too, until old_until
    old_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    after = models.BigIntegerField(default=0)  # id of the last event that it was given

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.url

    @property
    def secret_place(self) -> str:
        return f"notifications_endpoint:{self.pk}:secret"

    @property
    def old_secret_place(self) -> str:
        return f"notifications_endpoint:{self.pk}:old"

    def secrets(self) -> list[Secret]:
        """What signs now, the newest first. Raises SealBroken."""
        found = [unseal(self.secret_sealed, self.secret_place)]
        if self.old_secret_sealed and self.old_until and self.old_until > timezone.now():
            found.append(unseal(self.old_secret_sealed, self.old_secret_place))
        return found


STATES = {
    "taken": models.Q(sent_at__isnull=False),
    "waiting": models.Q(sent_at=None, next_at__isnull=False),
    "given up": models.Q(sent_at=None, next_at=None),
}


class Message(models.Model):
    """One event on its way to one endpoint: the row is the outbox, and kept as the record.

    Due while ``next_at`` has come; None when it was taken or given up.
    """

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="messages")
    name = models.CharField(max_length=40, unique=True)  # webhook-id: the same at each attempt
    type = models.CharField(max_length=40)
    body = models.TextField()
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(null=True, db_index=True)
    sent_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.type} to {self.endpoint}"

    @property
    def state(self) -> str:
        if self.sent_at:
            return "taken"
        return "waiting" if self.next_at else "given up"
