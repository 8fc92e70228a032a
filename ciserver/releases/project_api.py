"""Projects over the API, with what happens to them at the end."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.projects.api import ProjectSerializer
from ciserver.projects.api import ProjectViewSet as Projects
from ciserver.releases import archiving

CONFIRM = OpenApiParameter("confirm", str, description="the name of what goes, to be sure")


class DeletionSerializer(serializers.Serializer[Any]):
    """The query of a deletion."""

    confirm = serializers.CharField(default="", allow_blank=True)
    now = serializers.BooleanField(default=False)


class ProjectViewSet(Projects):
    __doc__ = Projects.__doc__

    @extend_schema(
        responses={202: ProjectSerializer},
        parameters=[
            CONFIRM,
            OpenApiParameter("now", bool, description="at once, and not after seven days"),
        ],
    )
    def destroy(self, request: Request, slug: str) -> Response:
        """Archive it, and delete it after seven days or at once: what serves is stopped then, and
        images, repository, logs and environments go. Needs the role owner."""
        asked = DeletionSerializer(data=request.query_params)
        asked.is_valid(raise_exception=True)
        row = archiving.delete(project=self.get_object(), user=request.user, **asked.validated_data)
        return Response(self.get_serializer(row).data, status=202)

    @extend_schema(request=None, responses=ProjectSerializer)
    @action(detail=True, methods=["post"])
    def archive(self, request: Request, slug: str) -> Response:
        """Make it read-only: nothing more is pushed, built or deployed, and what serves goes on
        serving. Needs the role owner."""
        row = archiving.archive(project=self.get_object(), user=request.user)
        return Response(self.get_serializer(row).data)

    @extend_schema(request=None, responses=ProjectSerializer)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, slug: str) -> Response:
        """Undo ``archive``, or a deletion whose time has not come. Needs the role owner."""
        row = archiving.restore(project=self.get_object(), user=request.user)
        return Response(self.get_serializer(row).data)
