"""Pipeline, Job, Step and TestCase rows, and the moves their states may make."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

from ciserver.projects.models import Project

LEASE = timedelta(seconds=settings.GANTRY.lease_seconds)
HEARTBEAT = LEASE / 4
MAX_ATTEMPTS = 3


class State(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # of a job: `when` leaves it out, or what it needs did not pass


FINISHED = (State.PASSED, State.FAILED, State.CANCELLED)  # of a pipeline

# A running pipeline goes back to the queue when the worker that held it died.
PIPELINE_MOVES: dict[str, tuple[State, ...]] = {
    State.QUEUED: (State.RUNNING, State.FAILED, State.CANCELLED),
    State.RUNNING: (State.QUEUED, *FINISHED),
    State.FAILED: (State.QUEUED,),  # run again
    State.CANCELLED: (State.QUEUED,),
}
JOB_MOVES: dict[str, tuple[State, ...]] = {
    State.QUEUED: (State.RUNNING, State.FAILED, State.CANCELLED, State.SKIPPED),
    State.RUNNING: FINISHED,
}


class Event(models.TextChoices):
    """What made a pipeline begin. A pull request of the project's own branch is its push."""

    PUSH = "push"
    TAG = "tag"
    PULL_REQUEST = "pull_request"
    MANUAL = "manual"
    SCHEDULE = "schedule"
    API = "api"


class Pipeline(models.Model):
    """One run for one commit. The row is the queue of record; see ``lease_until``.

    ``protected`` and ``from_fork`` are what held when it was made, and never change: they decide
    what it may read and write (see ``lane``). ``pull_request`` is the forge's number of one.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="pipelines")
    number = models.PositiveIntegerField()
    commit = models.CharField(max_length=64)
    ref = models.CharField(max_length=300)
    event = models.CharField(max_length=12, choices=Event.choices, default=Event.PUSH)
    protected = models.BooleanField(default=False)
    from_fork = models.BooleanField(default=False)
    pull_request = models.PositiveIntegerField(null=True, blank=True)
    started_by = models.CharField(max_length=150, blank=True)  # a person, or a schedule's times
    inputs = models.JSONField(default=dict, blank=True)  # given by whoever started it
    group = models.CharField(max_length=220, blank=True)  # see ``concurrency`` in gantry.yml
    waits = models.BooleanField(default=False)  # for others of its group that came before it
    title = models.CharField(max_length=300, blank=True)
    author = models.CharField(max_length=200, blank=True)
    committed_at = models.DateTimeField(null=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    reason = models.TextField(blank=True)
    place = models.CharField(max_length=300, blank=True)  # "Dockerfile:12"
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    worker = models.CharField(max_length=120, blank=True)
    fence = models.PositiveIntegerField(default=0)
    attempt = models.PositiveSmallIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    run = models.PositiveSmallIntegerField(default=1)  # 2 after it was run again, and so on
    keep_passed = models.BooleanField(default=False)  # this run repeats only what did not pass
    cancel_requested_by = models.CharField(max_length=150, blank=True)

    repository = models.CharField(max_length=300, blank=True)
    digest = models.CharField(max_length=80, blank=True)
    # Of several images each one's {"repository", "digest"}, by its name; the deployed one is above.
    images = models.JSONField(default=dict, blank=True)
    coverage_lines = models.PositiveIntegerField(null=True)  # that can run, as its reports tell
    coverage_covered = models.PositiveIntegerField(null=True)  # and that its tests ran
    coverage_base = models.ForeignKey("self", models.SET_NULL, null=True, related_name="+")
    bytes_sent = models.BigIntegerField(default=0)
    bytes_existing = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="pipeline_number")
        ]
        indexes = [
            models.Index(fields=["state", "lease_until"]),
            models.Index(fields=["project", "group", "state"], name="pipeline_group"),
            models.Index(fields=["project", "ref", "number"], name="pipeline_ref"),
            models.Index(fields=["project", "state", "number"], name="pipeline_state"),
            models.Index(fields=["project", "event", "number"], name="pipeline_event"),
        ]

    def __str__(self) -> str:
        return f"{self.project} #{self.number}"

    def get_absolute_url(self) -> str:
        return reverse("pipeline", args=[self.project.slug, self.number])

    @property
    def lane(self) -> str:
        """Whose caches it may write: "protected", "unprotected" or "fork-PR"."""
        if self.from_fork:
            return f"fork-{self.pull_request}"
        return "protected" if self.protected else "unprotected"

    @property
    def branch(self) -> str:
        return self.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")

    @property
    def short_commit(self) -> str:
        return self.commit[:8]

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def ahead(self) -> Pipeline | None:
        """What it waits for: the first of its group that has not ended, and came before it; a
        protected one for those that are protected, too."""
        if not self.waits or not self.group or self.state != State.QUEUED:
            return None
        group = Pipeline.objects.filter(project=self.project_id, group=self.group)
        if self.protected:
            group = group.filter(protected=True)
        earlier = models.Q(state=State.QUEUED, number__lt=self.number)
        return group.filter(models.Q(state=State.RUNNING) | earlier).order_by("number").first()

    @property
    def may_run_again(self) -> bool:
        """A pipeline that passed is sealed: the release is made of what it found."""
        return self.state in {State.FAILED, State.CANCELLED}

    @property
    def seconds(self) -> float | None:
        return _seconds(self.started_at, self.finished_at)

    @property
    def coverage(self) -> float | None:
        """Percent of the lines that can run; None when no report told."""
        if not self.coverage_lines:
            return None
        return 100.0 * (self.coverage_covered or 0) / self.coverage_lines

    @property
    def coverage_change(self) -> float | None:
        """Percentage points against the base's."""
        base = self.coverage_base.coverage if self.coverage_base else None
        return None if base is None or self.coverage is None else self.coverage - base

    def latest_jobs(self) -> list[Job]:
        """Of the jobs of each name the one that was run last: what the verdict is made of."""
        return list({job.name: job for job in self.jobs.order_by("position")}.values())


class Schedule(models.Model):
    """A time of ``schedule:`` in the gantry.yml of the default branch, kept as that is pushed."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="schedules")
    cron = models.CharField(max_length=100)  # in UTC
    inputs = models.JSONField(default=dict)
    next_at = models.DateTimeField(db_index=True)
    last_at = models.DateTimeField(null=True)
    pipeline = models.ForeignKey(Pipeline, models.SET_NULL, null=True, related_name="+")
    trouble = models.CharField(max_length=300, blank=True)  # why the last time started nothing

    class Meta:
        ordering = ["next_at"]

    def __str__(self) -> str:
        return f"{self.project}: {self.cron}"


class JobKind(models.TextChoices):
    BUILD = "build"
    TEST = "test"
    PUSH = "push"


class Job(models.Model):
    """One unit of a pipeline. ``reason`` says in words why it did not pass."""

    pipeline = models.ForeignKey(Pipeline, models.CASCADE, related_name="jobs")
    position = models.PositiveSmallIntegerField()
    run = models.PositiveSmallIntegerField(default=1)  # the pipeline's, when it was made
    name = models.CharField(max_length=300)
    kind = models.CharField(max_length=10, choices=JobKind.choices)
    options = models.JSONField(default=dict)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    reason = models.TextField(blank=True)
    place = models.CharField(max_length=300, blank=True)
    hint = models.TextField(blank=True)
    excerpt = models.TextField(blank=True)  # a line of the Dockerfile, a caret under it
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    # What its log takes once it is packed, see logkeeping; 0 when there is none any more.
    log_bytes = models.BigIntegerField(null=True)
    cases_left_out = models.PositiveIntegerField(default=0)  # its reports told more than are kept
    cases_removed = models.PositiveIntegerField(default=0)  # that were old, see casekeeping

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["pipeline", "position"], name="job_position")
        ]
        indexes = [
            models.Index(
                fields=["finished_at"], condition=models.Q(log_bytes=None), name="job_unpacked"
            ),
            # All that /metrics asks of the longest table it reads: its rows are then not read.
            models.Index(fields=["kind", "started_at", "finished_at"], name="job_duration"),
        ]

    def __str__(self) -> str:
        return f"{self.pipeline}/{self.name}"

    @property
    def needs(self) -> list[str]:
        """Names of the jobs that must have passed before this one starts."""
        return list(self.options.get("needs", ()))

    @property
    def log_path(self) -> Path:
        """Named by the row: each attempt has jobs, and so logs, of its own."""
        directory = settings.GANTRY.logs / "pipelines" / str(self.pipeline_id)
        return Path(directory) / f"{self.pk}.log"

    @property
    def seconds(self) -> float | None:
        return _seconds(self.started_at, self.finished_at)


class Step(models.Model):
    """One Dockerfile instruction or command. ``receipt`` is runtime.Receipt as JSON."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="steps")
    position = models.PositiveSmallIntegerField()
    text = models.TextField()
    stage = models.CharField(max_length=100, blank=True)
    place = models.CharField(max_length=300, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    cached = models.BooleanField(default=False)
    seconds = models.FloatField(null=True)
    layer_bytes = models.BigIntegerField(default=0)
    receipt = models.JSONField(null=True)

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["job", "position"], name="step_position")]

    def __str__(self) -> str:
        return self.text


class TestCase(models.Model):
    """One case of a JUnit report. ``superseded``: its job tried again, and this one is history."""

    __test__ = False  # not a test itself, whatever pytest thinks of its name

    class Outcome(models.TextChoices):
        PASSED = "passed"
        FAILED = "failed"
        ERROR = "error"
        SKIPPED = "skipped"

    job = models.ForeignKey(Job, models.CASCADE, related_name="cases")
    suite = models.CharField(max_length=300, blank=True)
    name = models.CharField(max_length=500)
    outcome = models.CharField(max_length=10, choices=Outcome.choices)
    seconds = models.FloatField(default=0)
    message = models.TextField(blank=True)
    superseded = models.BooleanField(default=False)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["name", "suite"], name="case_name")]

    def __str__(self) -> str:
        return f"{self.suite}.{self.name}"


class CoverageFile(models.Model):
    """What a job's reports tell of one file: ranges of line numbers, as ``1-3,7``."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="coverage_files")
    path = models.CharField(max_length=500)
    covered_lines = models.TextField(blank=True)
    missed_lines = models.TextField(blank=True)

    class Meta:
        ordering = ["path"]

    def __str__(self) -> str:
        return self.path


class Artifact(models.Model):
    """A file that a job left, kept until ``expires_at``. Its bytes are outside the database."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="artifacts")
    path = models.CharField(max_length=500)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["path"]

    def __str__(self) -> str:
        return self.path

    @property
    def file(self) -> Path:
        """Named by the rows: nothing that a job wrote is part of it."""
        return Path(settings.GANTRY.artifacts) / str(self.job_id) / str(self.pk)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


class Inspection(models.Model):
    """A program that somebody runs over what a failed job left; ``output`` is its end, as text."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="inspections")
    asked_by = models.CharField(max_length=150)
    asked_at = models.DateTimeField(auto_now_add=True)
    kept = models.CharField(max_length=64)  # the sandbox, see runtime.kept
    command = models.JSONField()  # a list of words
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    output = models.TextField(blank=True)
    exit_code = models.PositiveSmallIntegerField(null=True)
    reason = models.TextField(blank=True)  # why it was ended, or could not be run

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.job} #{self.pk}"


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    if start is None:
        return None
    return ((end or timezone.now()) - start).total_seconds()
