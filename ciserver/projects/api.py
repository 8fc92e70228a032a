"""Projects over the API."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from django.conf import settings
from django.db.models import QuerySet
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.accounts.models import User
from ciserver.projects import services
from ciserver.projects.models import Project


class ProjectSerializer(serializers.ModelSerializer[Project]):
    """``clone_url`` empty: Gantry hosts the repository at ``git_url``."""

    git_url = serializers.SerializerMethodField()
    page = serializers.SerializerMethodField()

    class Meta:
        model = Project
        fields = [
            "id",
            "slug",
            "description",
            "clone_url",
            "git_url",
            "default_branch",
            "page",
            "created_at",
        ]
        read_only_fields = ["id", "created_at", "default_branch"]
        extra_kwargs: ClassVar[dict[str, Any]] = {
            "slug": {"validators": []}
        }  # the service refuses, with the next step

    def get_git_url(self, project: Project) -> str:
        return f"{settings.GANTRY.url}/git/{project.slug}.git"

    def get_page(self, project: Project) -> str:
        return f"{settings.GANTRY.url}{project.get_absolute_url()}"


class ProjectViewSet(
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.CreateModelMixin,
    viewsets.GenericViewSet[Project],
):
    """Projects the caller may see, by slug."""

    queryset = Project.objects.all()
    serializer_class = ProjectSerializer
    lookup_field = "slug"
    lookup_value_regex = "[a-z0-9-]+"

    def get_queryset(self) -> QuerySet[Project]:
        return Project.objects.visible_to(self.request.user)

    def perform_create(self, serializer: serializers.BaseSerializer[Any]) -> None:
        owner = cast(User, self.request.user)
        serializer.instance = services.create(owner=owner, **serializer.validated_data)

    @action(detail=True, methods=["post"], url_path="hook-secret")
    def hook_secret(self, request: Request, slug: str) -> Response:
        """A new webhook secret, shown this once."""
        project = self.get_object()
        secret = services.renew_hook_secret(project=project, user=cast(User, request.user))
        return Response({"secret": secret.reveal()})
