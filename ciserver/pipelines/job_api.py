"""Jobs over the API: what they did, and their logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.lib.problems import Refused
from ciserver.pipelines.artifact_api import ArtifactSerializer
from ciserver.pipelines.case_api import TestCaseSerializer
from ciserver.pipelines.logs import Line, LogReader, Position
from ciserver.pipelines.logsearch import first_errors, position_of, search
from ciserver.pipelines.models import Job, Step
from ciserver.pipelines.query import number
from ciserver.projects.models import Project

AFTER = OpenApiParameter(
    "after",
    str,
    description="a position: 0-0 is the start, and the answer's header Log-Position tells where"
    " its text ends. Without it the whole log is sent.",
)


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


class LineSerializer(serializers.Serializer[Any]):
    """One line of a log. ``stream``: out, err, or sys for what Gantry says itself."""

    number = serializers.IntegerField()
    time = serializers.DateTimeField(allow_null=True)
    step = serializers.IntegerField()
    stream = serializers.CharField()
    text = serializers.CharField()


class JobSerializer(serializers.ModelSerializer[Job]):
    needs = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="jobs that must pass before it"
    )
    steps = StepSerializer(many=True, read_only=True)
    cases = TestCaseSerializer(many=True, read_only=True)
    cases_left_out = serializers.IntegerField(
        read_only=True, help_text="cases of its reports beyond those that are kept"
    )
    cases_removed = serializers.IntegerField(
        read_only=True, help_text="cases that were kept and are removed, as they were old"
    )
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
            "cases_left_out",
            "cases_removed",
            "artifacts",
        ]


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
        reader = LogReader(self.get_object().log_path)
        first = reader.read()  # before the answer begins: a log that cannot be read is refused
        chunks = _whole_log(reader, *first)
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
        after = number(request, "after", 0)
        return Response(_line_rows(job, search(job.log_path, words, after=after)))

    @extend_schema(responses=LineSerializer(many=True))
    @action(detail=True, url_path="first-error", pagination_class=None, filter_backends=[])
    def first_error(self, request: Request, pk: str) -> Response:
        """The first line that seems to tell of an error; an empty list when none does."""
        job = self.get_object()
        return Response(_line_rows(job, first_errors(job.log_path)))

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
        start, count = number(request, "start", 1), number(request, "count", 1000)
        found, _ = LogReader(job.log_path).read(position_of(job.log_path, max(start, 1)))
        return Response(_line_rows(job, found[: min(count, 1000)]))


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


async def _whole_log(
    reader: LogReader, lines: list[Line], position: Position
) -> AsyncIterator[str]:
    """Chunk by chunk: of a generator that is not async the server would keep the whole."""
    while lines:
        yield "".join(f"{line.text}\n" for line in lines)
        try:
            lines, position = await asyncio.to_thread(reader.read, position)
        except Refused as refusal:  # the answer has begun: it says so where it ends
            yield f"{refusal}\n"
            return


def _log_after(job: Job, after: str) -> HttpResponse:
    try:
        lines, end = LogReader(job.log_path).read(Position.parse(after))
    except ValueError:
        words = "This is no position of this log. Begin with 0-0; each answer has the next one."
        raise serializers.ValidationError({"after": words}) from None
    text = "".join(f"{line.text}\n" for line in lines)
    headers = {"Log-Position": str(end)}
    return HttpResponse(text, content_type="text/plain; charset=utf-8", headers=headers)
