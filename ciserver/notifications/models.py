"""Where a project's commit statuses go, and what each pipeline's forge has been told."""

from __future__ import annotations

from django.db import models

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
