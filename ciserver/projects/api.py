"""Projects over the API."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, cast

from django.conf import settings
from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.accounts.models import User
from ciserver.lib.crypto import Secret
from ciserver.lib.strict import Strict
from ciserver.projects import services
from ciserver.projects.badges import badge_path
from ciserver.projects.models import MOST_AT_ONCE, Project, ProjectSecret


class ProjectSerializer(serializers.ModelSerializer[Project]):
    """``clone_url`` empty: Gantry hosts the repository at ``git_url``."""

    git_url = serializers.SerializerMethodField()
    page = serializers.SerializerMethodField()
    badge = serializers.SerializerMethodField(help_text="an SVG; ?branch= names another branch")

    class Meta:
        model = Project
        fields = [
            "id",
            "slug",
            "description",
            "clone_url",
            "git_url",
            "default_branch",
            "cancel_superseded",
            "concurrency",
            "page",
            "badge",
            "created_at",
            "archived_at",
            "archived_by",
            "delete_at",
        ]
        read_only_fields = [
            "id", "created_at", "default_branch", "cancel_superseded", "concurrency",
            "archived_at", "archived_by", "delete_at",
        ]  # fmt: skip
        extra_kwargs: ClassVar[dict[str, Any]] = {
            "slug": {"validators": []}
        }  # the service refuses, with the next step

    def get_git_url(self, project: Project) -> str:
        return f"{settings.GANTRY.url}/git/{project.slug}.git"

    def get_page(self, project: Project) -> str:
        return f"{settings.GANTRY.url}{project.get_absolute_url()}"

    def get_badge(self, project: Project) -> str:
        return f"{settings.GANTRY.url}{badge_path(project)}"


class ProjectChangeSerializer(Strict):
    """What may be changed of a project and of how its pipelines are queued; what is left out
    stays. Where its repository is, is changed at ``repository/``."""

    description = serializers.CharField(required=False, allow_blank=True, max_length=200)
    cancel_superseded = serializers.BooleanField(required=False)
    concurrency = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=MOST_AT_ONCE,
        help_text="pipelines at once; 0: as many as there are workers",
    )


class SecretSerializer(serializers.ModelSerializer[ProjectSecret]):
    """A secret without its value, which nobody reads again."""

    class Meta:
        model = ProjectSecret
        fields = ["name", "created_at", "updated_at", "updated_by"]


class SecretValueSerializer(serializers.Serializer[Any]):
    value = serializers.CharField(trim_whitespace=False, write_only=True)


class HookSecretSerializer(serializers.ModelSerializer[Project]):
    """Never the secret itself. ``address``: put the forge's word in the place of FORGE."""

    set = serializers.SerializerMethodField()
    old_until = serializers.SerializerMethodField(help_text="null: no earlier one counts")
    address = serializers.SerializerMethodField()

    class Meta:
        model = Project
        fields = ["set", "old_until", "address"]

    def get_set(self, project: Project) -> bool:
        return bool(project.hook_secret_sealed)

    def get_old_until(self, project: Project) -> datetime | None:
        return project.hook_secret_old_until if project.old_hook_secret_counts else None

    def get_address(self, project: Project) -> str:
        return f"{settings.GANTRY.url}/hooks/FORGE/{project.slug}/"


class NewHookSecretSerializer(serializers.Serializer[Any]):
    drop_old = serializers.BooleanField(default=False)
    secret = serializers.CharField(required=False, write_only=True, help_text="that a forge made")


class ShownHookSecretSerializer(serializers.Serializer[Any]):
    secret = serializers.CharField()


FILTERS = [
    OpenApiParameter("q", str, description="part of the name or the description"),
    OpenApiParameter("archived", bool, description="true: those alone; false: without them"),
]


@extend_schema_view(list=extend_schema(parameters=FILTERS))
class ProjectViewSet(
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.CreateModelMixin,
    viewsets.GenericViewSet[Project],
):
    """Projects the caller may see, newest first."""

    queryset = Project.objects.all()
    serializer_class = ProjectSerializer
    lookup_field = "slug"
    lookup_value_regex = "[a-z0-9-]+"

    def get_queryset(self) -> QuerySet[Project]:
        seen = Project.objects.visible_to(self.request.user)
        if self.action != "list":
            return seen
        if archived := self.request.query_params.get("archived"):
            seen = seen.filter(archived_at__isnull=archived != "true")
        words = self.request.query_params.get("q", "").strip()[:100]
        return seen.filter(Q(slug__icontains=words) | Q(description__icontains=words))

    def perform_create(self, serializer: serializers.BaseSerializer[Any]) -> None:
        owner = cast(User, self.request.user)
        serializer.instance = services.create(owner=owner, **serializer.validated_data)

    @extend_schema(request=ProjectChangeSerializer, responses=ProjectSerializer)
    def partial_update(self, request: Request, slug: str) -> Response:
        """Change its description, or how its pipelines are queued. Needs the role maintainer."""
        given = ProjectChangeSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        project = services.change(
            project=self.get_object(), user=cast(User, request.user), **given.validated_data
        )
        return Response(self.get_serializer(project).data)

    @extend_schema(responses=HookSecretSerializer)
    @action(detail=True, url_path="hook-secret", pagination_class=None, filter_backends=[])
    def hook_secret(self, request: Request, slug: str) -> Response:
        """Whether there is a webhook secret, and until when the one before it counts."""
        return Response(HookSecretSerializer(self.get_object()).data)

    @extend_schema(responses={204: None})
    @hook_secret.mapping.delete
    def end_old_hook_secret(self, request: Request, slug: str) -> Response:
        """End the one before the present one now. Needs the role maintainer."""
        services.end_old_hook_secret(project=self.get_object(), user=cast(User, request.user))
        return Response(status=204)

    @extend_schema(request=NewHookSecretSerializer, responses=ShownHookSecretSerializer)
    @hook_secret.mapping.post
    def renew_hook_secret(self, request: Request, slug: str) -> Response:
        """A new webhook secret, shown this once. The old one counts for seven days more.

        With ``{"drop_old": true}`` the old one ends at once, as it should when it leaked; with
        ``{"secret": ...}`` it is one that the forge made, such as GitLab's signing token.
        """
        given = NewHookSecretSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        value = given.validated_data.get("secret")
        secret = services.renew_hook_secret(
            project=self.get_object(),
            user=cast(User, request.user),
            keep_old=not given.validated_data["drop_old"],
            value=Secret(value) if value else None,
        )
        return Response({"secret": secret.reveal()})

    @extend_schema(responses=SecretSerializer(many=True))
    @action(detail=True, pagination_class=None, filter_backends=[])
    def secrets(self, request: Request, slug: str) -> Response:
        """The names of the project's secrets; values are never shown."""
        return Response(SecretSerializer(self.get_object().secrets.all(), many=True).data)

    @extend_schema(request=SecretValueSerializer, responses=SecretSerializer)
    @action(detail=True, methods=["put"], url_path=r"secrets/(?P<name>[^/]+)")
    def secret(self, request: Request, slug: str, name: str) -> Response:
        """Make or replace a secret."""
        given = SecretValueSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        value = Secret(given.validated_data["value"])
        user = cast(User, request.user)
        row = services.set_secret(project=self.get_object(), user=user, name=name, value=value)
        return Response(SecretSerializer(row).data)

    @extend_schema(responses={204: None})
    @secret.mapping.delete
    def remove_secret(self, request: Request, slug: str, name: str) -> Response:
        """Remove a secret."""
        row = get_object_or_404(self.get_object().secrets, name=name)
        services.remove_secret(secret=row, user=cast(User, request.user))
        return Response(status=204)
