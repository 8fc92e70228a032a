"""Pipelines over the API: to look at, start, run again and cancel."""

from __future__ import annotations

from django.conf import settings
from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.pipelines import coverage, services
from ciserver.pipelines.coverage_api import CoverageSerializer
from ciserver.pipelines.job_api import JobSerializer
from ciserver.pipelines.models import Event, Job, Pipeline
from ciserver.pipelines.query import number
from ciserver.pipelines.start_api import InputSerializer, StartRequest, inputs_of, start_from
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require


class PipelineSerializer(serializers.ModelSerializer[Pipeline]):
    project: serializers.SlugRelatedField[Project] = serializers.SlugRelatedField(
        slug_field="slug", read_only=True
    )
    page = serializers.SerializerMethodField()
    coverage = serializers.FloatField(read_only=True, allow_null=True, help_text="percent of lines")
    coverage_change = serializers.FloatField(
        read_only=True, allow_null=True, help_text="percentage points against coverage_base"
    )

    class Meta:
        model = Pipeline
        fields = [
            "id",
            "project",
            "number",
            "commit",
            "ref",
            "event",
            "protected",
            "from_fork",
            "pull_request",
            "started_by",
            "inputs",
            "group",
            "title",
            "author",
            "state",
            "reason",
            "place",
            "created_at",
            "started_at",
            "finished_at",
            "repository",
            "digest",
            "images",
            "coverage",
            "coverage_change",
            "coverage_base",
            "bytes_sent",
            "bytes_existing",
            "page",
        ]

    def get_page(self, pipeline: Pipeline) -> str:
        return f"{settings.GANTRY.url}{pipeline.get_absolute_url()}"


class PipelineDetailSerializer(PipelineSerializer):
    jobs = JobSerializer(many=True, read_only=True)

    class Meta(PipelineSerializer.Meta):
        fields = [*PipelineSerializer.Meta.fields, "jobs"]


class RunAgainRequest(serializers.Serializer[None]):
    only_failed = serializers.BooleanField(
        default=False, help_text="keep the results of the tests that passed"
    )


FILTERS = [
    OpenApiParameter("project", str, description="slug of a project"),
    OpenApiParameter("number", int, description="number of a pipeline in its project"),
    OpenApiParameter("branch", str, description="name of a branch"),
    OpenApiParameter("ref", str, description="full ref, such as refs/tags/v1.0"),
    OpenApiParameter("commit", str, description="full commit id"),
    OpenApiParameter("state", str, description="queued, running, passed, failed, cancelled"),
    OpenApiParameter("event", str, description=", ".join(Event.values)),
]


@extend_schema_view(list=extend_schema(parameters=FILTERS))
class PipelineViewSet(viewsets.ReadOnlyModelViewSet[Pipeline]):
    """Pipelines of the projects the caller may see, newest first."""

    queryset = Pipeline.objects.all()
    serializer_class = PipelineSerializer

    def get_queryset(self) -> QuerySet[Pipeline]:
        seen = Project.objects.visible_to(self.request.user)
        pipelines = Pipeline.objects.filter(project__in=seen).select_related(
            "project", "coverage_base"
        )
        if self.action != "list":
            jobs = Job.objects.prefetch_related("steps", "cases", "artifacts")
            return pipelines.prefetch_related(Prefetch("jobs", jobs))
        asked = self.request.query_params
        fields = {"project": "project__slug"} | {
            name: name for name in ("ref", "commit", "state", "event")
        }
        pipelines = pipelines.filter(**{fields[key]: asked[key] for key in fields if key in asked})
        if "branch" in asked:
            pipelines = pipelines.filter(ref=f"refs/heads/{asked['branch']}")
        if "number" in asked:
            pipelines = pipelines.filter(number=number(self.request, "number", 0))
        return pipelines

    def get_serializer_class(self) -> type[serializers.BaseSerializer[Pipeline]]:
        return PipelineSerializer if self.action == "list" else PipelineDetailSerializer

    @extend_schema(request=StartRequest, responses={201: PipelineSerializer})
    def create(self, request: Request) -> Response:
        """Start a pipeline of what a branch or tag is at, with inputs."""
        return Response(PipelineSerializer(start_from(request)).data, status=201)

    @extend_schema(
        parameters=[
            OpenApiParameter("project", str, required=True, description="slug"),
            OpenApiParameter("ref", str, description="a branch or tag; else the default branch"),
        ],
        responses=InputSerializer(many=True),
    )
    @action(detail=False, pagination_class=None, filter_backends=[])
    def inputs(self, request: Request) -> Response:
        """Which inputs a pipeline of a branch or tag takes."""
        return Response(inputs_of(request))

    @extend_schema(request=RunAgainRequest, responses={202: PipelineSerializer})
    @action(detail=True, methods=["post"], url_path="run-again")
    def run_again(self, request: Request, pk: str) -> Response:
        """Run a pipeline that did not pass once more, all of it or only what failed."""
        pipeline = self.get_object()
        require(request.user, pipeline.project, Role.DEVELOPER)
        asked = RunAgainRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        pipeline = services.run_again(
            pipeline=pipeline,
            by=request.user.get_username(),
            only_failed=asked.validated_data["only_failed"],
        )
        return Response(PipelineSerializer(pipeline).data, status=202)

    @extend_schema(responses=CoverageSerializer)
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=[])
    def coverage(self, request: Request, pk: str) -> Response:
        """Coverage in all and file by file, those with most lines missed first."""
        pipeline = self.get_object()
        answer = {
            "coverage": pipeline.coverage,
            "change": pipeline.coverage_change,
            "base": pipeline.coverage_base_id,
            "files": coverage.by_file(pipeline),
        }
        return Response(CoverageSerializer(answer).data)

    @extend_schema(request=None, responses={202: PipelineSerializer})
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """End a pipeline that has not ended yet."""
        pipeline = self.get_object()
        require(request.user, pipeline.project, Role.DEVELOPER)
        pipeline = services.cancel(pipeline=pipeline, by=request.user.get_username())
        return Response(PipelineSerializer(pipeline).data, status=202)
