"""Images over the API: by project, name, tag, digest or label; their layers; the difference of
two."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import (
    OpenApiParameter,
    extend_schema,
    extend_schema_field,
    extend_schema_view,
)
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.dashboard import images
from ciserver.dashboard.image_difference import between
from ciserver.dashboard.models import ImageUse


class ImageSerializer(serializers.ModelSerializer[ImageUse]):
    """What one pipeline pushed. Sizes are bytes; ``wasted`` of ``unpacked`` no container sees."""

    project = serializers.CharField(source="project.slug")
    pipeline = serializers.IntegerField(source="pipeline.number")
    commit = serializers.CharField(source="pipeline.commit")
    digest = serializers.CharField(source="image.digest")
    tags = serializers.SerializerMethodField()
    size = serializers.IntegerField(source="image.size")
    unpacked = serializers.IntegerField(source="image.unpacked")
    wasted = serializers.IntegerField(source="image.wasted")
    trouble = serializers.CharField(source="image.trouble", help_text="why nothing is known of it")

    class Meta:
        model = ImageUse
        fields = [
            "id",
            "project",
            "name",
            "repository",
            "digest",
            "tags",
            "pipeline",
            "commit",
            "size",
            "unpacked",
            "wasted",
            "trouble",
        ]

    def get_tags(self, use: ImageUse) -> list[str]:
        return images.tags_of(use)


class LayerSerializer(serializers.Serializer[Any]):
    digest = serializers.CharField(source="row.layer.digest")
    instruction = serializers.CharField(source="row.instruction", allow_blank=True)
    place = serializers.CharField(allow_blank=True, help_text="Dockerfile:LINE, if it has one")
    size = serializers.IntegerField(source="row.layer.size", help_text="compressed bytes")
    unpacked = serializers.IntegerField(source="row.layer.unpacked")
    files = serializers.IntegerField(source="row.layer.files")
    wasted = serializers.IntegerField(source="row.wasted")
    shared = serializers.SerializerMethodField(help_text="images that have it too, by project")

    def get_shared(self, row: images.LayerRow) -> dict[str, int]:
        return dict(row.shared)


class ImageDetailSerializer(ImageSerializer):
    config = serializers.JSONField(source="image.config")
    labels = serializers.SerializerMethodField()
    layers = serializers.SerializerMethodField()

    class Meta(ImageSerializer.Meta):
        fields = [*ImageSerializer.Meta.fields, "config", "labels", "layers"]

    def get_labels(self, use: ImageUse) -> dict[str, str]:
        return dict(use.image.labels.values_list("name", "value"))

    @extend_schema_field(LayerSerializer(many=True))
    def get_layers(self, use: ImageUse) -> Any:
        rows = images.map_of(use, self.context["request"].user).rows
        return LayerSerializer(rows, many=True).data


class ChangeSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    old = serializers.CharField(allow_null=True)
    new = serializers.CharField(allow_null=True)


class FileChangeSerializer(serializers.Serializer[Any]):
    sign = serializers.ChoiceField(["+", "-", "~"])
    path = serializers.CharField()
    grown = serializers.IntegerField(help_text="bytes")


class DifferenceSerializer(serializers.Serializer[Any]):
    """``files`` are the 200 that changed most; ``count`` has all of them by sign."""

    old = serializers.CharField(source="old.digest")
    new = serializers.CharField(source="new.digest")
    grown = serializers.IntegerField(help_text="compressed bytes")
    travels = serializers.IntegerField(help_text="to a host that has the old one")
    files = FileChangeSerializer(many=True)
    count = serializers.DictField(child=serializers.IntegerField())
    packages = serializers.DictField(child=ChangeSerializer(many=True))
    variables = ChangeSerializer(many=True)
    labels = ChangeSerializer(many=True)
    settings = ChangeSerializer(many=True)
    unread = serializers.BooleanField(help_text="a layer was not looked through")


COMPARED = OpenApiParameter("other", int, OpenApiParameter.PATH, description="id of the old one")
FILTERS = [
    OpenApiParameter("project", str, description="slug of a project"),
    OpenApiParameter("q", str, description="name, tag, digest, or a label as `name=value`"),
]


@extend_schema_view(list=extend_schema(parameters=FILTERS))
class ImageViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[ImageUse]
):
    """Images that the caller's projects pushed, newest first."""

    queryset = ImageUse.objects.all()

    def get_queryset(self) -> QuerySet[ImageUse]:
        rows = images.uses_for(self.request.user)
        given = self.request.query_params
        if slug := given.get("project"):
            rows = rows.filter(project__slug=slug)
        return images.found(rows, given.get("q", "")[:100])

    def get_serializer_class(self) -> type[ImageSerializer]:
        return ImageSerializer if self.action == "list" else ImageDetailSerializer

    @extend_schema(responses=DifferenceSerializer, parameters=[COMPARED])
    @action(detail=True, url_path=r"compare/(?P<other>[0-9]{1,18})")
    def compare(self, request: Request, pk: str, other: str) -> Response:
        """What this image has that ``other``, an older one, has not, and the other way round."""
        new = self.get_object()
        old = get_object_or_404(images.uses_for(request.user), pk=other)
        return Response(DifferenceSerializer(between(old.image, new.image)).data)
