"""Pipelines, their jobs and logs over the API."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Prefetch, QuerySet
from django.http import HttpResponse, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.pipelines import artifacts, case_history, coverage, services
from ciserver.pipelines.logs import Line, LogReader, Position
from ciserver.pipelines.logsearch import position_of, search
from ciserver.pipelines.models import Artifact, Job, Pipeline, Step, TestCase
from ciserver.pipelines.start_api import InputSerializer, StartRequest, inputs_of, start_from
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require


class StepSerializer(serializers.ModelSerializer[Step]):
    class Meta:
        model = Step
        fields = [
            "position",
            "text",
            "stage",
            "place",
            "state",
            "cached",
            "seconds",
            "layer_bytes",
            "receipt",
        ]


class TestCaseSerializer(serializers.ModelSerializer[TestCase]):
    class Meta:
        model = TestCase
        fields = ["suite", "name", "outcome", "seconds", "message", "superseded"]


class LineSerializer(serializers.Serializer[Any]):
    """One line of a log. ``stream``: out, err, or sys for what Gantry says itself."""

    number = serializers.IntegerField()
    time = serializers.DateTimeField(allow_null=True)
    step = serializers.IntegerField()
    stream = serializers.CharField()
    text = serializers.CharField()


class ArtifactSerializer(serializers.ModelSerializer[Artifact]):
    """A kept file; fetch it at ``/api/v1/artifacts/ID/``."""

    class Meta:
        model = Artifact
        fields = ["id", "path", "size", "sha256", "created_at", "expires_at"]


class JobSerializer(serializers.ModelSerializer[Job]):
    needs = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="jobs that must pass before it"
    )
    steps = StepSerializer(many=True, read_only=True)
    cases = TestCaseSerializer(many=True, read_only=True)
    artifacts = ArtifactSerializer(many=True, read_only=True)

    class Meta:
        model = Job
        fields = [
            "id",
            "position",
            "run",
            "name",
            "kind",
            "needs",
            "state",
            "reason",
            "place",
            "hint",
            "excerpt",
            "started_at",
            "finished_at",
            "steps",
            "cases",
            "artifacts",
        ]


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


class FileCoverageSerializer(serializers.Serializer[Any]):
    path = serializers.CharField()
    lines = serializers.IntegerField(help_text="that can run")
    covered = serializers.IntegerField()
    percent = serializers.FloatField()
    missed = serializers.CharField(help_text="ranges of lines, as 1-3,7")
    change = serializers.FloatField(allow_null=True, help_text="percentage points against the base")


class CoverageSerializer(serializers.Serializer[Any]):
    coverage = serializers.FloatField(allow_null=True, help_text="percent of lines")
    change = serializers.FloatField(allow_null=True, help_text="percentage points against the base")
    base = serializers.IntegerField(allow_null=True, help_text="id of the pipeline compared with")
    files = FileCoverageSerializer(many=True)


class RunAgainRequest(serializers.Serializer[None]):
    only_failed = serializers.BooleanField(
        default=False, help_text="keep the results of the tests that passed"
    )


FILTERS = [
    OpenApiParameter("project", str, description="slug of a project"),
    OpenApiParameter("commit", str, description="full commit id"),
    OpenApiParameter("state", str, description="queued, running, passed, failed, cancelled"),
]


AFTER = OpenApiParameter(
    "after",
    str,
    description="a position: 0-0 is the start, and the answer's header Log-Position tells where"
    " its text ends. Without it the whole log is sent.",
)


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
        fields = {"project": "project__slug", "commit": "commit", "state": "state"}
        return pipelines.filter(**{fields[key]: asked[key] for key in fields if key in asked})

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


class CaseSerializer(serializers.ModelSerializer[TestCase]):
    """One run of one test. ``flaky``: it failed, and later passed at the same commit."""

    project = serializers.CharField(source="job.pipeline.project.slug")
    pipeline = serializers.IntegerField(source="job.pipeline.number")
    commit = serializers.CharField(source="job.pipeline.commit")
    job = serializers.CharField(source="job.name")
    flaky = serializers.SerializerMethodField()

    class Meta:
        model = TestCase
        fields = [
            "project",
            "pipeline",
            "commit",
            "job",
            "suite",
            "name",
            "outcome",
            "seconds",
            "message",
            "superseded",
            "flaky",
        ]

    def get_flaky(self, case: TestCase) -> bool:
        return case.outcome in case_history.BAD and bool(getattr(case, "passed_later", False))


CASE_FILTERS = [
    OpenApiParameter("project", str, description="slug of a project"),
    OpenApiParameter("pipeline", int, description="number of a pipeline"),
    OpenApiParameter("suite", str),
    OpenApiParameter("name", str, description="with a project: the test's history"),
    OpenApiParameter("outcome", str, description="passed, failed, error, skipped"),
    OpenApiParameter("flaky", str, description="1: only those that are"),
]


@extend_schema_view(list=extend_schema(parameters=CASE_FILTERS))
class CaseViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[TestCase]):
    """Runs of single tests, as their reports told them, newest first."""

    queryset = TestCase.objects.all()
    serializer_class = CaseSerializer

    def get_queryset(self) -> QuerySet[TestCase]:
        seen = Project.objects.visible_to(self.request.user)
        cases = TestCase.objects.filter(job__pipeline__project__in=seen)
        fields = {
            "project": "job__pipeline__project__slug",
            "suite": "suite",
            "name": "name",
            "outcome": "outcome",
        }
        asked = self.request.query_params
        cases = cases.filter(**{fields[key]: asked[key] for key in fields if key in asked})
        if "pipeline" in asked:
            cases = cases.filter(job__pipeline__number=_number(self.request, "pipeline", 0))
        cases = case_history.with_flaky(cases).select_related("job__pipeline__project")
        if asked.get("flaky") == "1":
            cases = cases.filter(case_history.passed_later(), outcome__in=case_history.BAD)
        return cases


class JobViewSet(viewsets.GenericViewSet[Job]):
    """Jobs come with their pipeline; here are their logs."""

    queryset = Job.objects.all()
    serializer_class = JobSerializer

    def get_queryset(self) -> QuerySet[Job]:
        seen = Project.objects.visible_to(self.request.user)
        return Job.objects.filter(pipeline__project__in=seen)

    @extend_schema(parameters=[AFTER], responses={(200, "text/plain"): OpenApiTypes.STR})
    @action(detail=True)
    def log(self, request: Request, pk: str) -> Any:
        """The whole log as plain text, one line a line; or what is behind a position."""
        if "after" in request.query_params:
            return _log_after(self.get_object(), request.query_params["after"])
        chunks = _whole_log(LogReader(self.get_object().log_path))
        return StreamingHttpResponse(chunks, content_type="text/plain; charset=utf-8")

    @extend_schema(
        parameters=[
            OpenApiParameter("q", str, required=True, description="words; case does not matter"),
            OpenApiParameter("after", int, description="only lines behind this one"),
        ],
        responses=LineSerializer(many=True),
    )
    @action(detail=True, pagination_class=None, filter_backends=[])
    def search(self, request: Request, pk: str) -> Response:
        """The first 100 lines of the log that hold ``q``; ask again ``after`` the last of them."""
        job = self.get_object()
        words = request.query_params.get("q", "")[:200]
        if not words.strip():
            raise serializers.ValidationError({"q": "Say what to look for."})
        after = _number(request, "after", 0)
        return Response(_line_rows(job, search(job.log_path, words, after=after)))

    @extend_schema(
        parameters=[
            OpenApiParameter("start", int, description="number of the first line, from 1"),
            OpenApiParameter("count", int, description="how many lines, 1000 at most"),
        ],
        responses=LineSerializer(many=True),
    )
    @action(detail=True, pagination_class=None, filter_backends=[])
    def lines(self, request: Request, pk: str) -> Response:
        """Lines with their number, time, step and stream, from any place of the log."""
        job = self.get_object()
        start, count = _number(request, "start", 1), _number(request, "count", 1000)
        found, _ = LogReader(job.log_path).read(position_of(job.log_path, max(start, 1)))
        return Response(_line_rows(job, found[: min(count, 1000)]))


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


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text):
        raise serializers.ValidationError({name: "This must be a whole number."})
    return int(text)


def _line_rows(job: Job, lines: list[Line]) -> list[dict[str, Any]]:
    start = job.started_at
    return [
        {
            "number": line.number,
            "time": start + timedelta(seconds=line.at) if start else None,
            "step": line.step,
            "stream": line.stream,
            "text": line.text,
        }
        for line in lines
    ]


async def _whole_log(reader: LogReader) -> AsyncIterator[str]:
    """Chunk by chunk: of a generator that is not async the server would keep the whole."""
    lines, position = await asyncio.to_thread(reader.read)
    while lines:
        yield "".join(f"{line.text}\n" for line in lines)
        lines, position = await asyncio.to_thread(reader.read, position)


def _log_after(job: Job, after: str) -> HttpResponse:
    try:
        lines, end = LogReader(job.log_path).read(Position.parse(after))
    except ValueError:
        words = "This is no position of this log. Begin with 0-0; each answer has the next one."
        raise serializers.ValidationError({"after": words}) from None
    text = "".join(f"{line.text}\n" for line in lines)
    headers = {"Log-Position": str(end)}
    return HttpResponse(text, content_type="text/plain; charset=utf-8", headers=headers)
