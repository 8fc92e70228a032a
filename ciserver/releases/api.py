"""Releases, environments, deployments and hosts over the API."""

from __future__ import annotations

from typing import TypeVar

from django.db.models import Model, Prefetch, Q, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.projects.api import SecretValueSerializer
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require
from ciserver.releases import (
    approvals,
    archiving,
    containers,
    environments,
    fleet,
    moving,
    policy,
    services,
)
from ciserver.releases import preview as previews
from ciserver.releases.daytwo.api import CommandRequest, CommandSerializer
from ciserver.releases.daytwo.api import asked as command_asked
from ciserver.releases.models import (
    Deployment,
    DeploymentStep,
    Environment,
    Host,
    Release,
    Running,
    Stop,
)
from ciserver.releases.preview_serializers import PreviewSerializer, PromotionPreviewSerializer
from ciserver.releases.project_api import CONFIRM
from ciserver.releases.secrets import remove_secret, set_secret
from ciserver.releases.serializers import (
    ContainerSerializer,
    DeploymentSerializer,
    EnvironmentChangeSerializer,
    EnvironmentSecretSerializer,
    EnvironmentSerializer,
    FingerprintSerializer,
    HostSerializer,
    MoveSerializer,
    NewEnvironmentSerializer,
    NewHostSerializer,
    NewStopSerializer,
    ReasonSerializer,
    ReleaseSerializer,
    SeenSerializer,
    StopSerializer,
    WhereSerializer,
)
from ciserver.releases.standing import STANDING

Row = TypeVar("Row", bound=Model)
PROJECT = OpenApiParameter("project", str, description="slug of a project")


RELEASE_FILTERS = [
    PROJECT,
    OpenApiParameter("number", int, description="number of a release in its project: 3 for v3"),
    OpenApiParameter("commit", str, description="full commit id"),
    OpenApiParameter("digest", str, description="of its image"),
]


@extend_schema_view(list=extend_schema(parameters=RELEASE_FILTERS))
class ReleaseViewSet(viewsets.ReadOnlyModelViewSet[Release]):
    """Releases of the projects the caller may see, newest first."""

    queryset = Release.objects.all()
    serializer_class = ReleaseSerializer

    def get_queryset(self) -> QuerySet[Release]:
        seen = Project.objects.visible_to(self.request.user)
        releases = Release.objects.filter(project__in=seen).select_related("project")
        fields = {
            "project": "project__slug",
            "number": "number",
            "commit": "commit",
            "digest": "digest",
        }
        return _asked(self.request, releases, fields)

    @extend_schema(request=WhereSerializer, responses={202: DeploymentSerializer})
    @action(detail=True, methods=["post"])
    def promote(self, request: Request, pk: str) -> Response:
        """Put a release into the next environment: the same digest, past its policy."""
        release = self.get_object()
        environment = _environment(request, release)
        deployment = services.promote(release=release, environment=environment, user=request.user)
        return _accepted(request, deployment)

    @extend_schema(
        parameters=[OpenApiParameter("environment", str, required=True)],
        responses=PromotionPreviewSerializer,
    )
    @action(detail=True, methods=["get"])
    def preview(self, request: Request, pk: str) -> Response:
        """What promoting it would change, and what it would wait for. Changes nothing."""
        release = self.get_object()
        environment = _environment(request, release)
        return Response(
            {
                **PreviewSerializer(previews.of(release, environment)).data,
                "configuration": policy.fingerprint(release, environment),
                "waits_for": services.would_wait_for(
                    release=release, environment=environment, user=request.user
                ),
            }
        )

    @extend_schema(request=WhereSerializer, responses={202: DeploymentSerializer})
    @action(detail=True, methods=["post"], url_path="roll-back")
    def roll_back(self, request: Request, pk: str) -> Response:
        """Put an environment back to this release, which ran there before."""
        release = self.get_object()
        environment = _environment(request, release)
        deployment = services.roll_back(environment=environment, release=release, user=request.user)
        return _accepted(request, deployment)


@extend_schema_view(
    list=extend_schema(
        parameters=[
            PROJECT,
            OpenApiParameter("name", str, description="name of an environment"),
            OpenApiParameter("show", str, description=f"only those: {', '.join(STANDING)}"),
        ]
    )
)
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
            .prefetch_related(
                "hosts",
                "domains",
                "given_up",
                "promoters",
                "approvers",
                Prefetch("running", running),
            )
        )
        if (show := self.request.query_params.get("show")) and self.action == "list":
            if show not in STANDING:
                raise serializers.ValidationError({"show": f"It is one of {', '.join(STANDING)}."})
            found = Environment.objects.filter(STANDING[show]).order_by()
            environments = environments.filter(pk__in=found.values("pk"))
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

    @extend_schema(responses={202: EnvironmentSerializer}, parameters=[CONFIRM])
    def destroy(self, request: Request, pk: str) -> Response:
        """Stop what serves it and forget it: a worker does. ``confirm`` is PROJECT@NAME. Needs
        the role owner."""
        confirm = request.query_params.get("confirm", "")
        row = archiving.remove(environment=self.get_object(), user=request.user, confirm=confirm)
        return Response(self.get_serializer(self.get_queryset().get(pk=row.pk)).data, status=202)

    @extend_schema(request=EnvironmentChangeSerializer, responses=EnvironmentSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change settings, policy, people or hosts. Needs the role maintainer."""
        asked = EnvironmentChangeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        row = environments.change(
            environment=self.get_object(), user=request.user, **asked.validated_data
        )
        return Response(EnvironmentSerializer(row).data)

    @extend_schema(request=MoveSerializer, responses={202: DeploymentSerializer})
    @action(detail=True, methods=["post"])
    def move(self, request: Request, pk: str) -> Response:
        """Have another host serve in place of one of its own: what runs there, by the same digest
        and with the same configuration. The old one serves until the new one is healthy."""
        asked = MoveSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        deployment = moving.move(
            environment=self.get_object(), user=request.user, **asked.validated_data
        )
        return _accepted(request, deployment)

    @extend_schema(request=CommandRequest, responses={201: CommandSerializer})
    @action(detail=True, methods=["post"])
    def commands(self, request: Request, pk: str) -> Response:
        """List, read, enter, stop or start its containers; read the answer's ``stream``."""
        row = command_asked(request, self.get_object())
        return Response(CommandSerializer(row).data, status=201)

    @extend_schema(responses=ContainerSerializer)
    @action(detail=True)
    def container(self, request: Request, pk: str) -> Response:
        """What serves it, to be run elsewhere: the image by digest and a login to pull it, limits,
        variables, and names of secrets."""
        row = ContainerSerializer(containers.recipe(self.get_object())).data
        return Response(row, headers={"Cache-Control": "no-store"})

    @extend_schema(responses=EnvironmentSecretSerializer(many=True))
    @action(detail=True, pagination_class=None, filter_backends=[])
    def secrets(self, request: Request, pk: str) -> Response:
        """The names of its secrets; values are never shown."""
        rows = self.get_object().secrets.all()
        return Response(EnvironmentSecretSerializer(rows, many=True).data)

    @extend_schema(request=SecretValueSerializer, responses=EnvironmentSecretSerializer)
    @action(detail=True, methods=["put"], url_path=r"secrets/(?P<name>[^/]+)")
    def secret(self, request: Request, pk: str, name: str) -> Response:
        """Make or replace a secret; containers have it from the next deployment."""
        given = SecretValueSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        row = set_secret(
            environment=self.get_object(),
            user=request.user,
            name=name,
            value=Secret(given.validated_data["value"]),
        )
        return Response(EnvironmentSecretSerializer(row).data)

    @extend_schema(responses={204: None})
    @secret.mapping.delete
    def remove_secret(self, request: Request, pk: str, name: str) -> Response:
        """Remove a secret; containers have it until the next deployment."""
        row = get_object_or_404(self.get_object().secrets, name=name)
        remove_secret(secret=row, user=request.user)
        return Response(status=204)


DEPLOYMENT_FILTERS = [
    PROJECT,
    OpenApiParameter("environment", str, description="name of an environment"),
    OpenApiParameter("release", int, description="id of a release"),
    OpenApiParameter(
        "state",
        str,
        description="waiting, queued, running, succeeded, failed, superseded, cancelled",
    ),
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
            .select_related("environment__project", "release", "from_host", "to_host")
            .prefetch_related(Prefetch("steps", steps), "approval_set__user")
        )
        fields = {
            "project": "environment__project__slug",
            "environment": "environment__name",
            "release": "release",
            "state": "state",
        }
        return _asked(self.request, deployments, fields)

    @extend_schema(request=SeenSerializer, responses=DeploymentSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        """Say yes to this digest with this configuration, as one of the named people."""
        asked = SeenSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        seen = asked.validated_data["configuration"]
        row = approvals.approve(deployment=self.get_object(), user=request.user, seen=seen)
        return self._again(request, row)

    @extend_schema(request=ReasonSerializer, responses=DeploymentSerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, pk: str) -> Response:
        """Say no, or withdraw it: it ends before it began."""
        asked = ReasonSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        reason = asked.validated_data["reason"]
        row = approvals.reject(deployment=self.get_object(), user=request.user, reason=reason)
        return self._again(request, row)

    @extend_schema(request=ReasonSerializer, responses=DeploymentSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """End it, also while it goes on: what was begun is withdrawn within seconds, and what
        served goes on serving."""
        asked = ReasonSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        reason = asked.validated_data["reason"]
        row = approvals.cancel(deployment=self.get_object(), user=request.user, reason=reason)
        return self._again(request, row)

    def _again(self, request: Request, row: Deployment) -> Response:
        fresh = self.get_queryset().get(pk=row.pk)
        return Response(DeploymentSerializer(fresh, context={"request": request}).data)


@extend_schema_view(
    list=extend_schema(
        parameters=[
            OpenApiParameter("project", str, description="name of a project"),
            OpenApiParameter("standing", bool, description="true: not resumed yet; false: resumed"),
        ]
    )
)
class StopViewSet(viewsets.ReadOnlyModelViewSet[Stop]):
    """When the line was stopped, by whom and why; the newest first."""

    queryset = Stop.objects.all()
    serializer_class = StopSerializer

    def get_queryset(self) -> QuerySet[Stop]:
        seen = Project.objects.visible_to(self.request.user)
        rows = Stop.objects.filter(Q(project=None) | Q(project__in=seen)).select_related("project")
        if self.action != "list":
            return rows
        if standing := self.request.query_params.get("standing"):
            rows = rows.filter(ended_at__isnull=standing == "true")
        return _asked(self.request, rows, {"project": "project__slug"})

    @extend_schema(request=NewStopSerializer, responses={201: StopSerializer})
    def create(self, request: Request) -> Response:
        """Stop the line: nothing but roll-backs begins until it is resumed."""
        asked = NewStopSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        project = self._project(asked.validated_data.get("project"))
        reason = asked.validated_data["reason"]
        row = approvals.stop(user=request.user, reason=reason, project=project)
        return Response(StopSerializer(row).data, status=201)

    @extend_schema(request=None, responses=StopSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Let what waited go on."""
        row = self.get_object()
        approvals.resume(user=request.user, project=row.project)
        row.refresh_from_db()
        return Response(StopSerializer(row).data)

    def _project(self, slug: str | None) -> Project | None:
        seen = Project.objects.visible_to(self.request.user)
        return get_object_or_404(seen, slug=slug) if slug else None


@extend_schema_view(
    list=extend_schema(parameters=[OpenApiParameter("name", str, description="name of a host")])
)
class HostViewSet(viewsets.ReadOnlyModelViewSet[Host]):
    """Hosts that run something of the projects the caller may see; all, for an administrator."""

    queryset = Host.objects.all()
    serializer_class = HostSerializer

    def get_queryset(self) -> QuerySet[Host]:
        return _asked(self.request, fleet.visible_to(self.request.user), {"name": "name"})

    @extend_schema(request=NewHostSerializer, responses={201: HostSerializer})
    def create(self, request: Request) -> Response:
        """Add a host that is reached by ssh. Its ``public_key`` must be allowed there."""
        asked = NewHostSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        row = fleet.add(user=request.user, **asked.validated_data)
        return Response(HostSerializer(row).data, status=201)

    def destroy(self, request: Request, pk: str) -> Response:
        """Forget a host that no environment uses."""
        fleet.remove(user=request.user, host=self.get_object())
        return Response(status=204)

    @extend_schema(request=None, responses={202: HostSerializer})
    @action(detail=True, methods=["post"])
    def check(self, request: Request, pk: str) -> Response:
        """Look at it: engine, disk, clock, registry, traffic. ``checked_at`` tells when it did."""
        row = fleet.ask(user=request.user, host=self.get_object(), verb="check")
        return Response(HostSerializer(row).data, status=202)

    @extend_schema(request=None, responses={202: HostSerializer})
    @action(detail=True, methods=["post"])
    def prepare(self, request: Request, pk: str) -> Response:
        """Install podman, Caddy and what they need, remove our containers that no environment knows
        of, then check it."""
        row = fleet.ask(user=request.user, host=self.get_object(), verb="prepare")
        return Response(HostSerializer(row).data, status=202)

    @extend_schema(request=FingerprintSerializer, responses={202: HostSerializer})
    @action(detail=True, methods=["post"], url_path="accept-key")
    def accept_key(self, request: Request, pk: str) -> Response:
        """Take the key of this fingerprint for the host's from now on."""
        asked = FingerprintSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        row = fleet.accept_key(user=request.user, host=self.get_object(), **asked.validated_data)
        return Response(HostSerializer(row).data, status=202)


def _asked(request: Request, rows: QuerySet[Row], fields: dict[str, str]) -> QuerySet[Row]:
    """``rows`` narrowed by the query parameters among ``fields``. A value no row can have, such
    as a word for a number, is refused rather than ignored."""
    given = request.query_params
    try:
        return rows.filter(**{fields[key]: given[key] for key in fields if key in given})
    except ValueError as error:
        raise serializers.ValidationError({"filter": str(error)}) from None


def _environment(request: Request, release: Release) -> Environment:
    """The one that the body names, or for GET the query."""
    asked = WhereSerializer(data=request.data if request.method == "POST" else request.query_params)
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
