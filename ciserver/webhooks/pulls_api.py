"""Pull requests over the API, and the approval of a fork's commit."""

from __future__ import annotations

from typing import Any, cast

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.accounts.models import User
from ciserver.projects.models import Project
from ciserver.webhooks.approvals import approve
from ciserver.webhooks.models import PullRequest


class PullRequestSerializer(serializers.ModelSerializer[PullRequest]):
    """``waits``: it is from a fork, and nobody has approved ``sha``."""

    project: serializers.SlugRelatedField[Project] = serializers.SlugRelatedField(
        slug_field="slug", read_only=True
    )
    waits = serializers.BooleanField(read_only=True)
    pipeline = serializers.SerializerMethodField()

    class Meta:
        model = PullRequest
        fields = [
            "id",
            "project",
            "forge",
            "number",
            "title",
            "sender",
            "head",
            "base",
            "sha",
            "from_fork",
            "open",
            "waits",
            "approved_sha",
            "approved_by",
            "approved_at",
            "pipeline",
            "updated_at",
        ]

    def get_pipeline(self, row: PullRequest) -> int | None:
        found = row.pipeline
        return found.number if found else None


class PullApprovalSerializer(serializers.Serializer[Any]):
    sha = serializers.CharField(help_text="The full commit id that you looked at.")


@extend_schema_view(
    list=extend_schema(
        parameters=[
            OpenApiParameter("project", str, description="slug of a project"),
            OpenApiParameter("open", bool, description="false: those that were merged or closed"),
        ]
    )
)
class PullRequestViewSet(viewsets.ReadOnlyModelViewSet[PullRequest]):
    """Pull requests that forges told of, newest first; open ones unless asked otherwise."""

    queryset = PullRequest.objects.all()
    serializer_class = PullRequestSerializer

    def get_queryset(self) -> QuerySet[PullRequest]:
        seen = Project.objects.visible_to(self.request.user)
        found = PullRequest.objects.filter(project__in=seen).select_related("project")
        asked = self.request.query_params
        if self.action == "list":
            found = found.filter(open=asked.get("open", "true").lower() != "false")
        if "project" in asked:
            found = found.filter(project__slug=asked["project"])
        return found

    @extend_schema(request=PullApprovalSerializer, responses=PullRequestSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        """Let this commit of a fork be built, without secrets. Needs the role maintainer."""
        given = PullApprovalSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user = cast(User, request.user)
        row = approve(pull_request=self.get_object(), user=user, **given.validated_data)
        return Response(PullRequestSerializer(row).data)
