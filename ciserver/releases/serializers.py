"""What releases, environments, deployments and hosts look like over the API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from ciserver.accounts.registry_tokens import LIFETIME
from ciserver.lib.strict import Strict
from ciserver.projects.models import Role
from ciserver.releases import addresses
from ciserver.releases.containers import Recipe
from ciserver.releases.models import (
    Approval,
    Deployment,
    DeploymentStep,
    Environment,
    EnvironmentSecret,
    GivenUp,
    Host,
    Release,
    Running,
    Stop,
)
from ciserver.releases.targets.connection import fingerprint


class EnvironmentSecretSerializer(serializers.ModelSerializer[EnvironmentSecret]):
    """A secret without its value, which nobody reads again."""

    class Meta:
        model = EnvironmentSecret
        fields = ["name", "created_at", "updated_at", "updated_by"]


class HostSerializer(serializers.ModelSerializer[Host]):
    """``public_key`` is the line for authorized_keys there; ``host_key`` the fingerprint that is
    pinned, ``offered_key`` another that was offered since. ``asked`` is what a worker
    is on its way to do ("check", "prepare"), or is doing ("checking", "preparing")."""

    host_key = serializers.SerializerMethodField()

    class Meta:
        model = Host
        fields = [
            "id",
            "name",
            "kind",
            "address",
            "public_key",
            "host_key",
            "offered_key",
            "report",
            "problem",
            "asked",
            "checked_at",
        ]

    def get_host_key(self, host: Host) -> str:
        return fingerprint(host.host_key)


class NewHostSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=63)
    address = serializers.CharField(max_length=300, help_text="[USER@]HOST[:PORT]")
    fingerprint = serializers.CharField(required=False, default="", allow_blank=True)


class FingerprintSerializer(serializers.Serializer[Any]):
    fingerprint = serializers.CharField()


class ReleaseSerializer(serializers.ModelSerializer[Release]):
    project = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    name = serializers.CharField(read_only=True)
    pipeline = serializers.PrimaryKeyRelatedField[Any](read_only=True)
    page = serializers.SerializerMethodField()

    class Meta:
        model = Release
        fields = [
            "id",
            "project",
            "number",
            "name",
            "pipeline",
            "commit",
            "title",
            "repository",
            "digest",
            "images",
            "tags",
            "evidence",
            "configuration",
            "removed_at",
            "created_at",
            "page",
        ]

    def get_page(self, release: Release) -> str:
        return f"{settings.GANTRY.url}{release.get_absolute_url()}"


class RunningSerializer(serializers.ModelSerializer[Running]):
    host = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)
    release = serializers.CharField(source="release.name", read_only=True)
    commit = serializers.CharField(source="release.commit", read_only=True)

    class Meta:
        model = Running
        fields = [
            "host",
            "release",
            "commit",
            "digest",
            "container_id",
            "healthy",
            "drift",
            "stopped_by",
            "seen_at",
            "since",
        ]


class GivenUpSerializer(serializers.ModelSerializer[GivenUp]):
    """Who gave it up may not put it elsewhere before ``free_at``, or, where that is null, at all:
    another owner may, or an approver."""

    free_at = serializers.SerializerMethodField()

    class Meta:
        model = GivenUp
        fields = ["address", "by", "at", "free_at"]

    def get_free_at(self, row: GivenUp) -> datetime | None:
        return addresses.free_at(row)


class EnvironmentSerializer(serializers.ModelSerializer[Environment]):
    """``address`` is where its hosts serve it; ``given_up`` are domains and ports that it had."""

    project = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    hosts = HostSerializer(many=True, read_only=True)
    running = RunningSerializer(many=True, read_only=True)
    address = serializers.SerializerMethodField()
    promoters = serializers.SlugRelatedField[Any](slug_field="username", many=True, read_only=True)
    approvers = serializers.SlugRelatedField[Any](slug_field="username", many=True, read_only=True)
    domains = serializers.SlugRelatedField[Any](slug_field="name", many=True, read_only=True)
    given_up = GivenUpSerializer(many=True, read_only=True)
    page = serializers.SerializerMethodField()

    class Meta:
        model = Environment
        fields = [
            "id",
            "project",
            "name",
            "position",
            "auto",
            "port",
            "address",
            "domains",
            "given_up",
            "https",
            "batch_size",
            "stop_on_failure",
            "health_timeout",
            "health",
            "health_passes",
            "stable_seconds",
            "memory_mib",
            "cpus",
            "pids",
            "variables",
            "promote_role",
            "promoters",
            "approvals",
            "approvers",
            "approval_hours",
            "soak_minutes",
            "kept_policy",
            "hosts",
            "running",
            "removed_at",
            "removed_by",
            "removal_problem",
            "page",
        ]

    def get_address(self, environment: Environment) -> str:
        return f"http://127.0.0.1:{environment.port}" if environment.port else ""

    def get_page(self, environment: Environment) -> str:
        return f"{settings.GANTRY.url}{environment.get_absolute_url()}"


class PullLoginSerializer(serializers.Serializer[Any]):
    username = serializers.CharField()
    password = serializers.CharField()
    expires_in = serializers.IntegerField(help_text="seconds")


class ContainerSerializer(serializers.Serializer[Any]):
    """What serves an environment, to be run elsewhere. ``variables`` are all that it was given;
    of ``secrets`` the names alone. ``login`` may pull ``repository`` and nothing else for a short
    time; null where the registry is not Gantry's own."""

    project = serializers.CharField(source="environment.project.slug")
    environment = serializers.CharField(source="environment.name")
    release = serializers.CharField(source="release.name")
    commit = serializers.CharField(source="release.commit")
    repository = serializers.CharField(source="release.repository")
    digest = serializers.CharField(source="release.digest")
    port = serializers.IntegerField(allow_null=True, help_text="that the image exposes first")
    variables = serializers.DictField(child=serializers.CharField())
    secrets = serializers.ListField(child=serializers.CharField())
    memory_mib = serializers.IntegerField()
    cpus = serializers.FloatField()
    pids = serializers.IntegerField()
    login = serializers.SerializerMethodField()

    @extend_schema_field(PullLoginSerializer(allow_null=True))
    def get_login(self, recipe: Recipe) -> dict[str, Any] | None:
        if recipe.login is None:
            return None
        username, password = recipe.login
        return {"username": username, "password": password, "expires_in": LIFETIME}


class DeploymentStepSerializer(serializers.ModelSerializer[DeploymentStep]):
    host = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)

    class Meta:
        model = DeploymentStep
        fields = ["position", "host", "name", "state", "detail", "started_at", "finished_at"]


class ApprovalSerializer(serializers.ModelSerializer[Approval]):
    """``configuration`` names what was approved; see ``counts`` of the deployment."""

    user = serializers.SlugRelatedField[Any](slug_field="username", read_only=True)

    class Meta:
        model = Approval
        fields = ["user", "at", "digest", "configuration"]


class DeploymentSerializer(serializers.ModelSerializer[Deployment]):
    """``bytes_pulled``: compressed layers that the hosts did not have before. ``from_host`` and
    ``to_host`` are those of a move; null otherwise."""

    url = serializers.HyperlinkedIdentityField(view_name="deployment-detail", read_only=True)
    project = serializers.CharField(source="environment.project.slug", read_only=True)
    environment = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)
    release = serializers.PrimaryKeyRelatedField[Any](read_only=True)
    release_name = serializers.CharField(source="release.name", read_only=True)
    digest = serializers.CharField(source="release.digest", read_only=True)
    from_host = serializers.SlugRelatedField[Any](
        slug_field="name", read_only=True, allow_null=True
    )
    to_host = serializers.SlugRelatedField[Any](slug_field="name", read_only=True, allow_null=True)
    steps = DeploymentStepSerializer(many=True, read_only=True)
    approvals = ApprovalSerializer(source="approval_set", many=True, read_only=True)

    class Meta:
        model = Deployment
        fields = [
            "id",
            "url",
            "project",
            "environment",
            "release",
            "release_name",
            "digest",
            "kind",
            "from_host",
            "to_host",
            "state",
            "reason",
            "requested_by",
            "cancelled_by",
            "attempt",
            "bytes_pulled",
            "created_at",
            "expires_at",
            "started_at",
            "finished_at",
            "steps",
            "approvals",
        ]


class NewEnvironmentSerializer(serializers.Serializer[Any]):
    project = serializers.SlugField(help_text="slug of a project")
    name = serializers.CharField()
    auto = serializers.BooleanField(default=False, help_text="gets every new release by itself")
    hosts = serializers.ListField(child=serializers.SlugField(), default=lambda: ["local"])


class EnvironmentChangeSerializer(Strict):
    """What is left out stays as it is. ``port``, ``domains`` and ``https`` hold at once."""

    domains = serializers.ListField(
        child=serializers.CharField(max_length=300),
        required=False,
        help_text="host names that lead to it; of no two environments the same",
    )
    port = serializers.IntegerField(required=False, help_text="where each of its hosts answers")
    https = serializers.CharField(
        required=False,
        help_text="'acme': certificates of a public authority; 'internal': of the host's own;"
        " 'off': no HTTPS",
    )

    auto = serializers.BooleanField(required=False)
    variables = serializers.DictField(child=serializers.CharField(allow_blank=True), required=False)
    hosts = serializers.ListField(child=serializers.SlugField(), required=False)
    promote_role = serializers.ChoiceField(choices=Role.choices, required=False)
    promoters = serializers.ListField(child=serializers.CharField(), required=False)
    approvers = serializers.ListField(child=serializers.CharField(), required=False)
    approvals = serializers.IntegerField(required=False)
    approval_hours = serializers.IntegerField(required=False)
    soak_minutes = serializers.IntegerField(required=False)
    health_timeout = serializers.IntegerField(required=False)
    health = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=300,
        help_text="'http /PATH', 'tcp', 'exec COMMAND'; empty for the image's own HEALTHCHECK",
    )
    health_passes = serializers.IntegerField(required=False)
    stable_seconds = serializers.IntegerField(required=False)
    batch_size = serializers.IntegerField(required=False)
    stop_on_failure = serializers.BooleanField(required=False)
    memory_mib = serializers.IntegerField(required=False)
    cpus = serializers.FloatField(required=False)
    pids = serializers.IntegerField(required=False)
    confirm_policy = serializers.BooleanField(
        required=False,
        help_text="another owner's word on what is in kept_policy: it holds for its author too",
    )


class ReasonSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(required=False, allow_blank=True, default="", max_length=300)


class SeenSerializer(serializers.Serializer[Any]):
    configuration = serializers.CharField(
        required=False,
        allow_blank=True,
        default="",
        help_text="'configuration' of the preview that was looked at: refused if it changed since",
    )


class StopSerializer(serializers.ModelSerializer[Stop]):
    """``project`` null: every project's line is stopped."""

    project = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, allow_null=True)

    class Meta:
        model = Stop
        fields = ["id", "project", "reason", "by", "at", "ended_at", "ended_by"]


class NewStopSerializer(ReasonSerializer):
    project = serializers.SlugField(required=False, help_text="without it: every project")


class WhereSerializer(serializers.Serializer[Any]):
    environment = serializers.CharField(help_text="name of an environment of the project")


class MoveSerializer(serializers.Serializer[Any]):
    to = serializers.CharField(max_length=63, help_text="name of the host that is to serve")
    host = serializers.CharField(
        max_length=63,
        default="",
        allow_blank=True,
        help_text="name of the one that serves now; not needed where there is only one",
    )
