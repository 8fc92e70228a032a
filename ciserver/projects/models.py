"""Projects, who may do what in them, and their webhook secret."""

from __future__ import annotations

import secrets as random
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from ciserver.accounts.models import Team, User
from ciserver.lib.crypto import SealBroken, Secret, seal, unseal

FIRST_ID = 0x10000000  # above every range that distributions hand out in /etc/subuid
RANGE = 65536
HOOK_SECRET_OVERLAP = timedelta(days=7)  # for telling every forge of the new one
MOST_AT_ONCE = 1000  # pipelines of one project
SECRET_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,99}"  # noqa: S105 - a pattern
SLUG = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"


class Role(models.IntegerChoices):
    """What a member may do; each may do what those before it may."""

    VIEWER = 10, "viewer"
    DEVELOPER = 20, "developer"
    MAINTAINER = 30, "maintainer"
    OWNER = 40, "owner"


class ProjectQuerySet(models.QuerySet["Project"]):
    def visible_to(self, user: Any) -> ProjectQuerySet:
        """The projects ``user`` may see: every lookup of a page or the API starts here."""
        return self.with_role(user, Role.VIEWER)

    def open(self) -> ProjectQuerySet:
        """Those that are not archived."""
        return self.filter(archived_at=None)

    def with_role(self, user: Any, role: Role) -> ProjectQuerySet:
        if not user.is_authenticated or not user.is_active:
            return self.none()
        seen = self.filter(pk=user.limited_to) if user.limited_to else self
        if user.is_superuser or user.administers:
            return seen
        own = Membership.objects.filter(user=user, role__gte=role)
        teams = TeamMembership.objects.filter(team__members=user, role__gte=role)
        return seen.filter(Q(pk__in=own.values("project")) | Q(pk__in=teams.values("project")))


class Project(models.Model):
    """One Git repository with its settings and members. An empty clone_url means hosted here."""

    SEALED = {
        "hook_secret_sealed": "hook_secret_place",
        "hook_secret_old_sealed": "hook_secret_old_place",
    }

    slug = models.CharField(max_length=63, unique=True, validators=[RegexValidator(rf"^{SLUG}\Z")])
    description = models.CharField(max_length=200, blank=True)
    clone_url = models.CharField(max_length=500, blank=True)
    default_branch = models.CharField(max_length=200, default="main")
    # Patterns such as "release/*"; the default branch is protected whatever they say.
    protected_branches = models.JSONField(default=list, blank=True)
    protected_tags = models.JSONField(default=list, blank=True)
    # Of the repository that we host: see ciserver.repositories.rules.
    push_role = models.PositiveSmallIntegerField(choices=Role.choices, default=Role.DEVELOPER)
    max_push_mib = models.PositiveIntegerField(default=2048)
    max_push_refs = models.PositiveIntegerField(default=500)
    # A new commit of a branch ends the pipelines of the commits before it.
    cancel_superseded = models.BooleanField(default=False)
    concurrency = models.PositiveSmallIntegerField(default=0)  # pipelines at once; 0: no limit
    served_at = models.DateTimeField(null=True, blank=True)  # when one last began: turns are taken
    hook_secret_sealed = models.TextField(blank=True)
    hook_secret_old_sealed = models.TextField(blank=True)
    hook_secret_old_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # Read-only since then, and gone from ``delete_at`` on: see ciserver.releases.archiving.
    archived_at = models.DateTimeField(null=True, blank=True)
    archived_by = models.CharField(max_length=150, blank=True, default="")
    delete_at = models.DateTimeField(null=True, blank=True)
    members = models.ManyToManyField(User, through="Membership", related_name="projects")

    objects = ProjectQuerySet.as_manager()

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug

    def get_absolute_url(self) -> str:
        return reverse("project", args=[self.slug])

    @property
    def going(self) -> bool:
        """Whether a worker is taking it away already, or will within moments."""
        return self.delete_at is not None and self.delete_at <= timezone.now()

    @property
    def hosted(self) -> bool:
        return not self.clone_url

    def protects(self, ref: str) -> bool:
        """Whether ``ref`` is the default branch, or matches a pattern of protected ones."""
        if ref == f"refs/heads/{self.default_branch}":
            return True
        for prefix, patterns in (
            ("refs/heads/", self.protected_branches),
            ("refs/tags/", self.protected_tags),
        ):
            if ref.startswith(prefix):
                name = ref.removeprefix(prefix)
                return any(fnmatchcase(name, pattern) for pattern in patterns)
        return False

    @property
    def id_base(self) -> int:
        """First host id of the range that this project's sandboxes are mapped to."""
        return FIRST_ID + self.pk * RANGE

    @property
    def hook_secret(self) -> Secret | None:
        """The webhook secret, or None: a project without one refuses every webhook."""
        if not self.hook_secret_sealed:
            return None
        return unseal(self.hook_secret_sealed, self.hook_secret_place)

    @property
    def hook_secrets(self) -> list[Secret]:
        """The webhook secrets that count now: the new one and, for a while, the one before it.

        One that does not open counts no more than one that is not there.
        """
        found = []
        with suppress(SealBroken, ValueError):
            found += [self.hook_secret] if self.hook_secret else []
        if self.old_hook_secret_counts:
            with suppress(SealBroken, ValueError):
                found.append(unseal(self.hook_secret_old_sealed, self.hook_secret_old_place))
        return found

    @property
    def old_hook_secret_counts(self) -> bool:
        until = self.hook_secret_old_until
        return until is not None and until > timezone.now()

    def end_old_hook_secret(self) -> None:
        self.hook_secret_old_sealed, self.hook_secret_old_until = "", None
        self.save(update_fields=["hook_secret_old_sealed", "hook_secret_old_until"])

    def renew_hook_secret(self, *, keep_old: bool = True, value: Secret | None = None) -> Secret:
        """A new webhook secret. The one before it counts for HOOK_SECRET_OVERLAP if kept.

        ``value`` is one that the forge made, as GitLab does its signing tokens.
        """
        old = None
        with suppress(SealBroken, ValueError):
            old = self.hook_secret if keep_old else None
        secret = value or Secret(random.token_urlsafe(32))
        self.hook_secret_sealed = seal(secret, self.hook_secret_place)
        self.hook_secret_old_sealed = seal(old, self.hook_secret_old_place) if old else ""
        self.hook_secret_old_until = timezone.now() + HOOK_SECRET_OVERLAP if old else None
        self.save(
            update_fields=["hook_secret_sealed", "hook_secret_old_sealed", "hook_secret_old_until"]
        )
        return secret

    @property
    def hook_secret_old_place(self) -> str:
        return f"projects_project:{self.pk}:hook_secret_old"

    @property
    def hook_secret_place(self) -> str:
        return f"projects_project:{self.pk}:hook_secret"

    @property
    def people(self) -> models.QuerySet[User]:
        """Who has a role here, in person or through a team."""
        return User.objects.filter(
            Q(pk__in=Membership.objects.filter(project=self).values("user"))
            | Q(teams__in=TeamMembership.objects.filter(project=self).values("team"))
        ).distinct()

    def allows(self, user: Any, role: Role) -> bool:
        return Project.objects.filter(pk=self.pk).with_role(user, role).exists()


class ProjectSecret(models.Model):
    """A value for jobs that name it. Write-only: nothing but a worker reads it again."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="secrets")
    name = models.CharField(max_length=100, validators=[RegexValidator(rf"^{SECRET_NAME}\Z")])
    sealed = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    updated_by = models.CharField(max_length=150)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="secret_name")]

    def __str__(self) -> str:
        return self.name

    @property
    def place(self) -> str:
        """What the value is sealed for: it opens in no other project and under no other name."""
        return f"projects_projectsecret:{self.project_id}:{self.name}"

    def put(self, value: Secret) -> None:
        self.sealed = seal(value, self.place)

    def value(self) -> Secret:
        """Raises SealBroken."""
        return unseal(self.sealed, self.place)


class Membership(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.PositiveSmallIntegerField(choices=Role.choices, default=Role.VIEWER)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="one_membership_each")
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.get_role_display()} of {self.project}"


class TeamMembership(models.Model):
    """A team's role in a project. Who is in several ways a member has the highest of the roles."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="team_memberships")
    team = models.ForeignKey(Team, models.CASCADE, related_name="memberships")
    role = models.PositiveSmallIntegerField(choices=Role.choices, default=Role.VIEWER)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "team"], name="one_membership_each_team")
        ]

    def __str__(self) -> str:
        return f"{self.team}: {self.get_role_display()} of {self.project}"


def roles_of(user: Any, projects: Iterable[Project]) -> dict[int, int]:
    """Project's key -> the highest role of ``user`` there; without those where there is none."""
    if not user.is_authenticated or not user.is_active:
        return {}
    rows = [project for project in projects if user.limited_to in {None, project.pk}]
    if user.is_superuser or user.administers:
        return {project.pk: Role.OWNER for project in rows}
    own = Membership.objects.filter(user=user, project__in=rows)
    teams = TeamMembership.objects.filter(team__members=user, project__in=rows)
    columns = ("project", "role")
    found: dict[int, int] = {}
    for project, role in own.values_list(*columns).union(teams.values_list(*columns)):
        found[project] = max(role, found.get(project, 0))
    return found
