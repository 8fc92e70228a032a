"""Release, Environment, Host, Deployment and what runs where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.urls import reverse
from django.utils.crypto import salted_hmac

from ciserver.accounts.models import User
from ciserver.lib.crypto import Secret, seal, unseal
from ciserver.pipelines.models import Pipeline
from ciserver.projects.models import SECRET_NAME, SLUG, Project, Role


class Sealed(Exception):
    """A change of what a release is. Nothing the service does asks for one."""

    def __init__(self, which: object, fields: Iterable[str]) -> None:
        names = " and ".join(sorted(fields))
        super().__init__(f"{which} is there already: its {names} cannot be changed")


class ReleaseQuerySet(models.QuerySet["Release"]):
    def update(self, **values: Any) -> int:
        """Raises Sealed."""
        sealed = {*Release.FIXED, "image", "project_id", "pipeline_id"}
        if changed := values.keys() & sealed:
            raise Sealed("a release", changed)
        return super().update(**values)


class Release(models.Model):
    """A digest and its evidence, numbered per project. Immutable once it is there: a row that
    exists takes no other value of FIXED, and one of ``image``."""

    FIXED = (
        "project", "number", "pipeline", "commit", "title", "repository", "digest", "images",
        "evidence", "configuration",
    )  # fmt: skip

    project = models.ForeignKey(Project, models.CASCADE, related_name="releases")
    number = models.PositiveIntegerField()
    pipeline = models.OneToOneField(Pipeline, models.PROTECT, related_name="release")
    commit = models.CharField(max_length=64)
    title = models.CharField(max_length=300, blank=True)
    repository = models.CharField(max_length=300)
    digest = models.CharField(max_length=80)
    # Of several images each one's {"repository", "digest"}; the one environments run is above.
    images = models.JSONField(default=dict, blank=True)
    evidence = models.JSONField(default=dict)
    image = models.JSONField(default=dict)  # ImageFacts, once read; the digest names them all
    configuration = models.CharField(max_length=64, blank=True)  # see evidence.configuration
    # Git tags put on its commit afterwards: {"name", "pipeline"}, whose image is this very one.
    tags = models.JSONField(default=list, blank=True)
    removed_at = models.DateTimeField(null=True)  # when retention gave its image up
    image_deleted = models.BooleanField(default=False)  # and the registry did
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ReleaseQuerySet.as_manager()

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="release_number")]

    def __str__(self) -> str:
        return f"{self.project} {self.name}"

    def save(self, *, update_fields: Iterable[str] | None = None, **options: Any) -> None:
        """Raises Sealed."""
        sealed = (*self.FIXED, "image")
        fields = sealed if update_fields is None else {*update_fields} & {*sealed}
        stored = Release.objects.filter(pk=self.pk).only(*fields).first() if fields else None
        changed = {name for name in fields if stored and self._differs(stored, name)}
        if changed:
            raise Sealed(self, changed)
        super().save(update_fields=update_fields, **options)

    def get_absolute_url(self) -> str:
        return reverse("release", args=[self.project.slug, self.number])

    def _differs(self, stored: Release, name: str) -> bool:
        column = {"project": "project_id", "pipeline": "pipeline_id"}.get(name, name)
        was, now = getattr(stored, column), getattr(self, column)
        return was != now and (name != "image" or was != {})

    @property
    def name(self) -> str:
        return f"v{self.number}"

    @property
    def reference(self) -> str:
        return f"{self.repository}@{self.digest}"

    def every_image(self) -> list[tuple[str, str]]:
        """(repository, digest) of each, the deployed one first."""
        beside = [(one["repository"], one["digest"]) for one in self.images.values()]
        return list(dict.fromkeys([(self.repository, self.digest), *beside]))

    @property
    def short_commit(self) -> str:
        return self.commit[:8]


class Host(models.Model):
    """A machine that runs containers. ``kind`` is a row of ``targets.KINDS``."""

    name = models.CharField(max_length=63, unique=True, validators=[RegexValidator(rf"^{SLUG}\Z")])
    kind = models.CharField(max_length=20, default="local")
    address = models.CharField(max_length=300, blank=True)  # of ssh: [USER@]HOST[:PORT]
    public_key = models.CharField(max_length=200, blank=True)  # ours, to be allowed there
    sealed = models.TextField(blank=True)  # its private half
    host_key = models.CharField(max_length=800, blank=True)  # as it was when it was seen first
    offered_key = models.CharField(max_length=100, blank=True)  # fingerprint of a changed one
    accepted_key = models.CharField(max_length=100, blank=True)  # the only one to be pinned next
    engine = models.CharField(max_length=10, blank=True)  # that worked when it was last used
    # of a worker: "check" or "prepare"; "checking" or "preparing" once one is at it
    asked = models.CharField(max_length=10, blank=True)
    report = models.JSONField(default=dict, blank=True)  # what the last check found
    problem = models.TextField(blank=True)  # why the last check found nothing
    checked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("host", args=[self.name])

    def put(self, private_key: Secret) -> None:
        self.sealed = seal(private_key, self._place)

    def value(self) -> Secret:
        """Our private key. Raises SealBroken."""
        return unseal(self.sealed, self._place)

    @property
    def _place(self) -> str:
        return f"host:{self.name}:ssh key"


class Environment(models.Model):
    """A place in a project's ordered chain. ``auto`` ones get what ran well in the place before,
    or every new release if they are the first. Its policy is the six fields from
    ``promote_role`` on; ``ciserver.releases.policy`` says what they mean."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="environments")
    name = models.CharField(max_length=63, validators=[RegexValidator(rf"^{SLUG}\Z")])
    position = models.PositiveSmallIntegerField()
    auto = models.BooleanField(default=False)
    port = models.PositiveIntegerField(null=True, blank=True)  # where its hosts serve it
    # How its domains get certificates: a key of targets.domains.MODES
    https = models.CharField(max_length=10, default="acme")
    variables = models.JSONField(default=dict, blank=True)
    health_timeout = models.PositiveSmallIntegerField(default=60)  # seconds
    # "http /PATH", "tcp" or "exec COMMAND"; the image's HEALTHCHECK, else "http /", if empty
    health = models.CharField(max_length=300, blank=True)
    health_passes = models.PositiveSmallIntegerField(default=2)  # in a row
    # That it must stay up then: by default what passes and dies five seconds later gets no traffic.
    stable_seconds = models.PositiveSmallIntegerField(default=6)
    memory_mib = models.PositiveIntegerField(default=512)  # of each container, as are the next two
    cpus = models.FloatField(default=1.0)
    pids = models.PositiveIntegerField(default=512)
    hosts = models.ManyToManyField(Host, related_name="environments")
    batch_size = models.PositiveSmallIntegerField(default=1)  # hosts that change at a time
    stop_on_failure = models.BooleanField(default=True)  # leave the other hosts as they are
    promote_role = models.PositiveSmallIntegerField(choices=Role.choices, default=Role.MAINTAINER)
    promoters = models.ManyToManyField(User, blank=True, related_name="may_promote_to")
    approvals = models.PositiveSmallIntegerField(default=0)  # that a promotion needs
    approvers = models.ManyToManyField(User, blank=True, related_name="may_approve_in")
    approval_hours = models.PositiveSmallIntegerField(default=72)  # then who asked asks again
    soak_minutes = models.PositiveIntegerField(default=0)  # in the environment before
    # User name -> the "approvals" and "soak_minutes" that still hold for what that person asks
    # for, who lowered them: see policy.demanded.
    kept_policy = models.JSONField(default=dict, blank=True)
    # Somebody wants it to be gone: a worker takes it from its hosts (see ``removal``).
    removed_at = models.DateTimeField(null=True)
    removed_by = models.CharField(max_length=150, blank=True, default="")
    removal_problem = models.TextField(blank=True, default="")
    fence = models.PositiveIntegerField(default=0)  # of whoever restores it (see leases.tend)
    lease_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="environment_name"),
            models.UniqueConstraint(fields=["project", "position"], name="environment_position"),
            models.UniqueConstraint(fields=["port"], name="environment_port"),
        ]

    def __str__(self) -> str:
        return f"{self.project}@{self.name}"

    def get_absolute_url(self) -> str:
        return reverse("environment", args=[self.project.slug, self.name])


class Domain(models.Model):
    """A host name that an environment's hosts answer to, and no other environment's."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="domains")
    name = models.CharField(max_length=253, unique=True)  # lower case, in ASCII (IDNA)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class GivenUp(models.Model):
    """A domain or port that led to ``environment`` when it asked for approvals or soak time, and
    leads nowhere now: see ``ciserver.releases.addresses`` for who may put it elsewhere. It outlives
    its environment, whose name is ``of``."""

    address = models.CharField(max_length=253, unique=True)  # a Domain's name, or a port in digits
    environment = models.ForeignKey(
        Environment, models.SET_NULL, null=True, related_name="given_up"
    )
    of = models.CharField(max_length=150, default="")  # PROJECT@NAME
    by = models.CharField(max_length=150)
    at = models.DateTimeField()
    approvals = models.PositiveSmallIntegerField()  # that it asked for, of whoever gave it up
    soak_minutes = models.PositiveIntegerField()

    class Meta:
        ordering = ["address"]

    def __str__(self) -> str:
        return self.words

    @property
    def words(self) -> str:
        return f"Port {self.address}" if self.address.isdecimal() else self.address


class EnvironmentSecret(models.Model):
    """A variable of an environment's containers. Write-only: nothing but a worker reads it."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="secrets")
    name = models.CharField(max_length=100, validators=[RegexValidator(rf"^{SECRET_NAME}\Z")])
    sealed = models.TextField()
    fingerprint = models.CharField(max_length=64)  # tells values apart, and nothing about them
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    updated_by = models.CharField(max_length=150)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["environment", "name"], name="environment_secret_name")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def place(self) -> str:
        """What the value is sealed for: it opens nowhere else and under no other name."""
        return f"releases_environmentsecret:{self.environment_id}:{self.name}"

    def put(self, value: Secret) -> None:
        self.sealed = seal(value, self.place)
        self.fingerprint = salted_hmac(self.place, value.reveal(), algorithm="sha256").hexdigest()

    def value(self) -> Secret:
        """Raises SealBroken."""
        return unseal(self.sealed, self.place)


class DeploymentState(models.TextChoices):
    WAITING = "waiting"  # for what the environment's policy asks
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"


UNFINISHED = (DeploymentState.WAITING, DeploymentState.QUEUED, DeploymentState.RUNNING)

DEPLOYMENT_MOVES: dict[str, tuple[str, ...]] = {
    DeploymentState.WAITING: (
        DeploymentState.QUEUED,
        DeploymentState.SUPERSEDED,
        DeploymentState.CANCELLED,  # refused, withdrawn, or nobody approved it in time
    ),
    DeploymentState.QUEUED: (
        DeploymentState.WAITING,  # what it was granted for changed, or the line was stopped
        DeploymentState.RUNNING,
        DeploymentState.FAILED,
        DeploymentState.SUPERSEDED,
        DeploymentState.CANCELLED,
    ),
    DeploymentState.RUNNING: (
        DeploymentState.QUEUED,  # its worker died: the next one takes it up
        DeploymentState.SUCCEEDED,
        DeploymentState.FAILED,
        DeploymentState.CANCELLED,  # by its own worker, which has withdrawn what it began
    ),
}


class DeploymentKind(models.TextChoices):
    AUTO = "auto", "automatic"
    PROMOTION = "promotion"
    ROLLBACK = "rollback"
    MOVE = "move"  # of what serves, from one host to another


class Deployment(models.Model):
    """One release put into one environment, host by host."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="deployments")
    release = models.ForeignKey(Release, models.PROTECT, related_name="deployments")
    kind = models.CharField(max_length=10, choices=DeploymentKind.choices)
    state = models.CharField(
        max_length=10, choices=DeploymentState.choices, default=DeploymentState.QUEUED
    )
    reason = models.TextField(blank=True)
    requested_by = models.CharField(max_length=150, blank=True)
    cancelled_by = models.CharField(max_length=150, blank=True)  # once it had begun
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True)  # of one that waits for approvals
    configuration = models.JSONField(default=dict)  # its environment's, once it has begun
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    worker = models.CharField(max_length=120, blank=True)
    fence = models.PositiveIntegerField(default=0)
    attempt = models.PositiveSmallIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    bytes_pulled = models.BigIntegerField(null=True)
    # Of a move: the host that is left, and the one that takes its place.
    from_host = models.ForeignKey(Host, models.SET_NULL, null=True, related_name="moves_from")
    to_host = models.ForeignKey(Host, models.SET_NULL, null=True, related_name="moves_to")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["environment"],
                condition=models.Q(state=DeploymentState.RUNNING),
                name="one_deployment_at_a_time",
            )
        ]

    def __str__(self) -> str:
        return f"{self.release} to {self.environment.name}"

    @property
    def finished(self) -> bool:
        return self.state not in UNFINISHED

    @property
    def waiting(self) -> bool:
        return self.state == DeploymentState.WAITING


class Approval(models.Model):
    """A named person's word on a promotion, for one digest and one configuration alone."""

    deployment = models.ForeignKey(Deployment, models.CASCADE, related_name="approval_set")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="approvals")
    at = models.DateTimeField(auto_now_add=True)
    digest = models.CharField(max_length=80)
    configuration = models.CharField(max_length=64)  # policy.fingerprint when it was given

    class Meta:
        ordering = ["at"]
        constraints = [
            models.UniqueConstraint(fields=["deployment", "user"], name="one_approval_each")
        ]

    def __str__(self) -> str:
        return f"{self.user} approves {self.deployment}"


class Stop(models.Model):
    """The line is stopped: nothing but roll-backs begins, in one project or (None) in all."""

    project = models.ForeignKey(Project, models.CASCADE, null=True, related_name="stops")
    reason = models.CharField(max_length=300)
    by = models.CharField(max_length=150)
    at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)
    ended_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.project or 'everything'} stopped by {self.by}: {self.reason}"


class DeploymentStep(models.Model):
    """What was done on one host, recorded before (running) and after (its end)."""

    deployment = models.ForeignKey(Deployment, models.CASCADE, related_name="steps")
    host = models.ForeignKey(Host, models.PROTECT)
    position = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=40)
    state = models.CharField(
        max_length=10, choices=DeploymentState.choices, default=DeploymentState.RUNNING
    )
    detail = models.TextField(blank=True)
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["position"]

    def __str__(self) -> str:
        return f"{self.name} on {self.host}"


class Running(models.Model):
    """The container that serves an environment on a host, as the host itself reported it."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="running")
    host = models.ForeignKey(Host, models.CASCADE, related_name="running")
    release = models.ForeignKey(Release, models.PROTECT, related_name="running")
    container_id = models.CharField(max_length=80)
    digest = models.CharField(max_length=80)
    healthy = models.BooleanField(default=True)
    drift = models.CharField(max_length=300, blank=True)  # how what runs is not what is wanted
    stopped_by = models.CharField(max_length=150, blank=True)  # who wants it to be stopped
    seen_at = models.DateTimeField(null=True)  # when a worker last looked
    since = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "host"], name="one_runs_on_a_host")
        ]
        verbose_name_plural = "running"

    def __str__(self) -> str:
        return f"{self.release} on {self.host}"


class CommandState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"  # whatever its exit code
    FAILED = "failed"  # it could not be done; ``reason`` says why


class ContainerCommand(models.Model):
    """What somebody asks of an environment's containers: see ``ciserver.releases.daytwo``.

    What they say passes by and is not kept. ``words`` are a program's, or a path's.
    """

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="commands")
    host = models.ForeignKey(Host, models.CASCADE, null=True, related_name="commands")
    verb = models.CharField(max_length=10)
    words = models.JSONField(default=list)
    options = models.JSONField(default=dict)  # those of ``asking.Options``
    asked_by = models.CharField(max_length=150)
    asked_at = models.DateTimeField(auto_now_add=True)
    state = models.CharField(
        max_length=10, choices=CommandState.choices, default=CommandState.QUEUED
    )
    exit_code = models.PositiveSmallIntegerField(null=True)
    reason = models.TextField(blank=True)
    beat_at = models.DateTimeField(null=True)  # when whoever does it last said so

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.verb} in {self.environment}"
