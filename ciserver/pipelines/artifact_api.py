"""Files that jobs left to be kept, over the API."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.request import Request

from ciserver.pipelines import artifacts
from ciserver.pipelines.models import Artifact
from ciserver.projects.models import Project


class ArtifactSerializer(serializers.ModelSerializer[Artifact]):
    """A kept file; fetch it at ``/api/v1/artifacts/ID/``."""

    class Meta:
        model = Artifact
        fields = ["id", "path", "size", "sha256", "created_at", "expires_at"]


class ArtifactViewSet(viewsets.GenericViewSet[Artifact]):
    """Files that jobs left to be kept; their rows come with the job."""

    queryset = Artifact.objects.all()
    serializer_class = ArtifactSerializer

    def get_queryset(self) -> QuerySet[Artifact]:
        seen = Project.objects.visible_to(self.request.user)
        return Artifact.objects.filter(job__pipeline__project__in=seen)

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def retrieve(self, request: Request, pk: str) -> Any:
        """The file itself."""
        return artifacts.file_of(self.get_object())
