"""Deliveries: one webhook request or git push as received, with the verdict on it."""

from __future__ import annotations

from django.db import models
from django.urls import reverse

from ciserver.pipelines.models import Pipeline, State
from ciserver.projects.models import Project

POLL = "poll"  # in the place of a forge's name: a look at the repository found it
PULL = "pull"  # the kind of a delivery that tells of a fork's commit


class Verdict(models.TextChoices):
    ACCEPTED = "accepted", "starts a pipeline"
    IGNORED = "ignored", "well signed, but nothing to do"
    DUPLICATE = "duplicate", "this ref was told to be at this commit already"
    STALE = "stale", "its ref had moved on"
    FAILED = "failed", "could not be used"
    WAITING = "waiting", "a fork's commit, which a maintainer has yet to approve"


class Delivery(models.Model):
    """``kind`` is what the event means (push, tag); ``event`` is the forge's own word.

    At most one accepted delivery of a ref is not ``superseded``: the last one.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="deliveries")
    forge = models.CharField(max_length=20)
    delivery_id = models.CharField(max_length=100)
    event = models.CharField(max_length=60, blank=True)
    kind = models.CharField(max_length=10, blank=True)
    ref = models.CharField(max_length=300, blank=True)
    sha = models.CharField(max_length=64, blank=True)
    sender = models.CharField(max_length=150, blank=True)
    headers = models.JSONField(default=dict)
    body = models.BinaryField(default=b"")
    verdict = models.CharField(max_length=10, choices=Verdict.choices)
    superseded = models.BooleanField(default=False)
    detail = models.TextField(blank=True)
    pipeline = models.ForeignKey(
        Pipeline, models.SET_NULL, null=True, blank=True, related_name="deliveries"
    )
    pull_request = models.ForeignKey(
        "PullRequest", models.SET_NULL, null=True, blank=True, related_name="deliveries"
    )
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "deliveries"
        # What /metrics counts at each scrape, without reading every body.
        indexes = [models.Index(fields=["forge", "verdict"], name="delivery_verdict")]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "forge", "delivery_id"], name="delivered_once"
            ),
            # Forges that renew the id when they replay are caught by what the event means.
            models.UniqueConstraint(
                fields=["project", "ref", "kind"],
                condition=models.Q(verdict=Verdict.ACCEPTED, superseded=False),
                name="accepted_last",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.forge} {self.event} {self.ref}"

    def get_absolute_url(self) -> str:
        return reverse("delivery", args=[self.project.slug, self.pk])

    @property
    def in_vain(self) -> bool:
        """It led to no image and will not any more: the same may be told again."""
        if self.verdict == Verdict.FAILED:
            return True
        return self.verdict == Verdict.ACCEPTED and is_in_vain(self.pipeline)


class PullRequest(models.Model):
    """A pull request as its forge told of it last. ``sha`` is where it is now.

    Of a fork's, only ``approved_sha`` is built: a new commit needs a new approval. ``ref`` is
    where the project's own repository has the fork's commits.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="pull_requests")
    forge = models.CharField(max_length=20)
    number = models.PositiveIntegerField()
    title = models.CharField(max_length=300, blank=True)
    sender = models.CharField(max_length=150, blank=True)
    head = models.CharField(max_length=300)
    base = models.CharField(max_length=300)
    ref = models.CharField(max_length=300, blank=True)
    sha = models.CharField(max_length=64)
    from_fork = models.BooleanField()
    open = models.BooleanField(default=True)
    approved_sha = models.CharField(max_length=64, blank=True)
    approved_by = models.CharField(max_length=150, blank=True)
    approved_at = models.DateTimeField(null=True, blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-updated_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "forge", "number"], name="pull_request_number"
            )
        ]

    def __str__(self) -> str:
        return f"{self.project} pull request {self.number}"

    @property
    def waits(self) -> bool:
        """Whether a maintainer has yet to approve what it is at."""
        return self.open and self.from_fork and bool(self.ref) and self.approved_sha != self.sha

    @property
    def pipeline(self) -> Pipeline | None:
        """The last one of what it is at."""
        return self.project.pipelines.filter(pull_request=self.number, commit=self.sha).first()


class Poll(models.Model):
    """What the last look at an outside repository saw. ``heads`` maps a ref to its sha.

    It is None before the first look; ``quiet`` counts the looks since something was new;
    ``address`` is where it looked, empty of looks before that was written down.
    """

    project = models.OneToOneField(Project, models.CASCADE, related_name="poll")
    heads = models.JSONField(null=True)
    address = models.CharField(max_length=500, blank=True)
    quiet = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField()
    looked_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"poll of {self.project}"


def is_in_vain(pipeline: Pipeline | None) -> bool:
    return pipeline is not None and pipeline.state in {State.FAILED, State.CANCELLED}
