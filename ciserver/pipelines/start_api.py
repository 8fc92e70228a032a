"""Starting pipelines over the API: what a branch may be given, and when it starts by itself."""

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
from rest_framework.request import Request

from ciserver.pipelines.models import Event, Pipeline, Schedule
from ciserver.pipelines.starting import head_of, start
from ciserver.projects.models import Project


@extend_schema_field({"type": ["string", "number", "boolean"]})
class InputField(serializers.CharField):
    """A value of any input's type: JSON's ``true`` and ``3.5`` are such values, too."""

    def to_internal_value(self, data: Any) -> str:
        return super().to_internal_value(str(data).lower() if isinstance(data, bool) else data)


class StartRequest(serializers.Serializer[None]):
    project = serializers.CharField(help_text="slug of a project")
    ref = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=300,
        help_text="a branch or a tag; the default branch without it",
    )
    inputs = serializers.DictField(
        child=InputField(allow_blank=True, trim_whitespace=False),
        required=False,
        help_text="values of `inputs:` in gantry.yml, by name",
    )


class InputSerializer(serializers.Serializer[Any]):
    """One value that may be given."""

    name = serializers.CharField()
    type = serializers.CharField(help_text="string, number, boolean or choice")
    description = serializers.CharField()
    default = serializers.CharField(allow_null=True)
    # The key's own word, though a field has an attribute of this name.
    required = serializers.BooleanField()  # type: ignore[assignment]
    options = serializers.ListField(child=serializers.CharField())


class ScheduleSerializer(serializers.ModelSerializer[Schedule]):
    """A time at which a project's default branch is built, in UTC."""

    project: serializers.SlugRelatedField[Project] = serializers.SlugRelatedField(
        slug_field="slug", read_only=True
    )
    pipeline = serializers.IntegerField(
        source="pipeline.number", read_only=True, allow_null=True, help_text="the last it started"
    )

    class Meta:
        model = Schedule
        fields = ["project", "cron", "inputs", "next_at", "last_at", "pipeline", "trouble"]


@extend_schema_view(
    list=extend_schema(parameters=[OpenApiParameter("project", str, description="slug")])
)
class ScheduleViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[Schedule]):
    """Times at which pipelines start by themselves, the next first."""

    queryset = Schedule.objects.all()
    serializer_class = ScheduleSerializer

    def get_queryset(self) -> QuerySet[Schedule]:
        seen = Project.objects.visible_to(self.request.user)
        rows = Schedule.objects.filter(project__in=seen).select_related("project", "pipeline")
        slug = self.request.query_params.get("project")
        return rows.filter(project__slug=slug) if slug else rows


def start_from(request: Request) -> Pipeline:
    """The pipeline that a StartRequest asks for. Raises Refused."""
    asked = StartRequest(data=request.data)
    asked.is_valid(raise_exception=True)
    given = asked.validated_data
    seen = Project.objects.visible_to(request.user)
    return start(
        project=get_object_or_404(seen, slug=given["project"]),
        user=request.user,
        ref=given.get("ref", ""),
        inputs=given.get("inputs", {}),
        event=Event.API,
    )


def inputs_of(request: Request) -> list[dict[str, Any]]:
    """The inputs of the ref that ``request`` names, as rows. Raises Refused."""
    seen = Project.objects.visible_to(request.user)
    project = get_object_or_404(seen, slug=request.query_params.get("project", ""))
    head = head_of(project, request.query_params.get("ref", ""))
    rows = [{"name": name, **it.model_dump()} for name, it in head.definition.inputs.items()]
    return [dict(row) for row in InputSerializer(rows, many=True).data]
