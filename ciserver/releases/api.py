"""Releases, environments, deployments and hosts over the API."""

from __future__ import annotations

from typing import Any, TypeVar

from django.conf import settings
from django.db.models import Model, Prefetch, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from ciserver.lib.problems import Refused
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require
from ciserver.releases import services
from ciserver.releases.models import (
    Deployment,
    DeploymentStep,
    Environment,
    Host,
    Release,
    Running,
)

Row = TypeVar("Row", bound=Model)
PROJECT = OpenApiParameter("project", str, description="slug of a project")


class HostSerializer(serializers.ModelSerializer[Host]):
    class Meta:
        model = Host
        fields = ["id", "name", "kind", "address"]


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
            "evidence",
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
        fields = ["host", "release", "commit", "digest", "container_id", "healthy", "since"]


class EnvironmentSerializer(serializers.ModelSerializer[Environment]):
    """``address`` is where its hosts serve it."""

    project = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    hosts = HostSerializer(many=True, read_only=True)
    running = RunningSerializer(many=True, read_only=True)
    address = serializers.SerializerMethodField()

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
            "health_timeout",
            "memory_mib",
            "cpus",
            "pids",
            "hosts",
            "running",
        ]

    def get_address(self, environment: Environment) -> str:
        return f"http://127.0.0.1:{environment.port}" if environment.port else ""


class DeploymentStepSerializer(serializers.ModelSerializer[DeploymentStep]):
    host = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)

    class Meta:
        model = DeploymentStep
        fields = ["position", "host", "name", "state", "detail", "started_at", "finished_at"]


class DeploymentSerializer(serializers.ModelSerializer[Deployment]):
    """``bytes_pulled``: compressed layers that the hosts did not have before."""

    url = serializers.HyperlinkedIdentityField(view_name="deployment-detail", read_only=True)
    project = serializers.CharField(source="environment.project.slug", read_only=True)
    environment = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)
    release = serializers.PrimaryKeyRelatedField[Any](read_only=True)
    release_name = serializers.CharField(source="release.name", read_only=True)
    digest = serializers.CharField(source="release.digest", read_only=True)
    steps = DeploymentStepSerializer(many=True, read_only=True)

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
            "state",
            "reason",
            "requested_by",
            "attempt",
            "bytes_pulled",
            "created_at",
            "started_at",
            "finished_at",
            "steps",
        ]


class NewEnvironmentSerializer(serializers.Serializer[Any]):
    project = serializers.SlugField(help_text="slug of a project")
    name = serializers.CharField()
    auto = serializers.BooleanField(default=False, help_text="gets every new release by itself")
    hosts = serializers.ListField(child=serializers.SlugField(), default=lambda: ["local"])


class WhereSerializer(serializers.Serializer[Any]):
    environment = serializers.CharField(help_text="name of an environment of the project")


@extend_schema_view(list=extend_schema(parameters=[PROJECT]))
class ReleaseViewSet(viewsets.ReadOnlyModelViewSet[Release]):
    """Releases of the projects the caller may see, newest first."""

    queryset = Release.objects.all()
    serializer_class = ReleaseSerializer

    def get_queryset(self) -> QuerySet[Release]:
        seen = Project.objects.visible_to(self.request.user)
        releases = Release.objects.filter(project__in=seen).select_related("project")
        return _asked(self.request, releases, {"project": "project__slug", "digest": "digest"})

    @extend_schema(request=WhereSerializer, responses={202: DeploymentSerializer})
    @action(detail=True, methods=["post"])
    def promote(self, request: Request, pk: str) -> Response:
        """Put a release into the next environment: the same digest, past its policy."""
        release = self.get_object()
        environment = _environment(request, release)
        deployment = services.promote(release=release, environment=environment, user=request.user)
        return _accepted(request, deployment)

    @extend_schema(request=WhereSerializer, responses={202: DeploymentSerializer})
    @action(detail=True, methods=["post"], url_path="roll-back")
    def roll_back(self, request: Request, pk: str) -> Response:
        """Put an environment back to this release, which ran there before."""
        release = self.get_object()
        environment = _environment(request, release)
        deployment = services.roll_back(environment=environment, release=release, user=request.user)
        return _accepted(request, deployment)


@extend_schema_view(list=extend_schema(parameters=[PROJECT]))
class EnvironmentViewSet(viewsets.ReadOnlyModelViewSet[Environment]):
    """Environments with their hosts and what runs there."""

    queryset = Environment.objects.all()
    serializer_class = EnvironmentSerializer

    def get_queryset(self) -> QuerySet[Environment]:
        seen = Project.objects.visible_to(self.request.user)
        running = Running.objects.select_related("host", "release")
        environments = (
            Environment.objects.filter(project__in=seen)
            .select_related("project")
            .prefetch_related("hosts", Prefetch("running", running))
        )
        return _asked(self.request, environments, {"project": "project__slug", "name": "name"})

    @extend_schema(request=NewEnvironmentSerializer, responses={201: EnvironmentSerializer})
    def create(self, request: Request) -> Response:
        """Add an environment at the end of the project's chain. The host ``local`` is this
        machine, for every project; another only who maintains a project there may name."""
        asked = NewEnvironmentSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        wanted = asked.validated_data
        seen = Project.objects.visible_to(request.user)
        project = get_object_or_404(seen, slug=wanted["project"])
        require(request.user, project, Role.MAINTAINER)
        hosts = services.usable_hosts(user=request.user, names=wanted["hosts"])
        environment = services.create_environment(
            project=project,
            name=wanted["name"],
            auto=wanted["auto"],
            hosts=hosts,
            actor=request.user.get_username(),
        )
        return Response(EnvironmentSerializer(environment).data, status=201)


DEPLOYMENT_FILTERS = [
    PROJECT,
    OpenApiParameter("environment", str, description="name of an environment"),
    OpenApiParameter("release", int, description="id of a release"),
    OpenApiParameter("state", str, description="queued, running, succeeded, failed, superseded"),
]


@extend_schema_view(list=extend_schema(parameters=DEPLOYMENT_FILTERS))
class DeploymentViewSet(viewsets.ReadOnlyModelViewSet[Deployment]):
    """Deployments with their steps, newest first."""

    queryset = Deployment.objects.all()
    serializer_class = DeploymentSerializer

    def get_queryset(self) -> QuerySet[Deployment]:
        seen = Project.objects.visible_to(self.request.user)
        steps = DeploymentStep.objects.select_related("host")
        deployments = (
            Deployment.objects.filter(environment__project__in=seen)
            .select_related("environment__project", "release")
            .prefetch_related(Prefetch("steps", steps))
        )
        fields = {
            "project": "environment__project__slug",
            "environment": "environment__name",
            "release": "release",
            "state": "state",
        }
        return _asked(self.request, deployments, fields)


class HostViewSet(viewsets.ReadOnlyModelViewSet[Host]):
    """Hosts that run something of the projects the caller may see."""

    queryset = Host.objects.all()
    serializer_class = HostSerializer

    def get_queryset(self) -> QuerySet[Host]:
        seen = Project.objects.visible_to(self.request.user)
        if self.request.user.is_superuser:
            return Host.objects.all()
        return Host.objects.filter(environments__project__in=seen).distinct()


def _asked(request: Request, rows: QuerySet[Row], fields: dict[str, str]) -> QuerySet[Row]:
    """``rows`` narrowed by the query parameters among ``fields``. A value no row can have, such
    as a word for a number, is refused rather than ignored."""
    given = request.query_params
    try:
        return rows.filter(**{fields[key]: given[key] for key in fields if key in given})
    except ValueError as error:
        raise serializers.ValidationError({"filter": str(error)}) from None


def _environment(request: Request, release: Release) -> Environment:
    asked = WhereSerializer(data=request.data)
    asked.is_valid(raise_exception=True)
    name = asked.validated_data["environment"]
    environments = release.project.environments.select_related("project")
    if found := environments.filter(name=name).first():
        return found
    names = ", ".join(environments.values_list("name", flat=True)) or "none yet"
    raise Refused(
        f"{release.project} has no environment {name!r}.",
        code="environment.unknown",
        hint=f"It has: {names}.",
        status=404,
    )


def _accepted(request: Request, deployment: Deployment) -> Response:
    data = DeploymentSerializer(deployment, context={"request": request}).data
    where = reverse("deployment-detail", args=[deployment.pk], request=request)
    return Response(data, status=202, headers={"Location": where})
