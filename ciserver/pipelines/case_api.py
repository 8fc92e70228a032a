"""Single tests and their history over the API."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.pipelines import case_history
from ciserver.pipelines.models import TestCase
from ciserver.pipelines.query import number
from ciserver.projects.models import Project


class TestCaseSerializer(serializers.ModelSerializer[TestCase]):
    class Meta:
        model = TestCase
        fields = ["suite", "name", "outcome", "seconds", "message", "superseded"]


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


class SlowSerializer(serializers.Serializer[Any]):
    """Seconds of a test in the recent pipelines."""

    suite = serializers.CharField()
    name = serializers.CharField()
    mean = serializers.FloatField()
    worst = serializers.FloatField()
    runs = serializers.IntegerField()


CASE_FILTERS = [
    OpenApiParameter("project", str, description="slug of a project"),
    OpenApiParameter("pipeline", int, description="number of a pipeline"),
    OpenApiParameter("suite", str),
    OpenApiParameter("name", str, description="with a project: the test's history"),
    OpenApiParameter(
        "outcome", str, description="passed, failed, error, skipped; several with commas between"
    ),
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
        }
        asked = self.request.query_params
        cases = cases.filter(**{fields[key]: asked[key] for key in fields if key in asked})
        if "outcome" in asked:
            cases = cases.filter(outcome__in=asked["outcome"].split(","))
        if "pipeline" in asked:
            cases = cases.filter(job__pipeline__number=number(self.request, "pipeline", 0))
        if asked.get("flaky") == "1":
            cases = cases.filter(case_history.passed_later(), outcome__in=case_history.BAD)
        return cases.select_related("job__pipeline__project")

    @extend_schema(
        parameters=[OpenApiParameter("project", str, required=True, description="slug")],
        responses=SlowSerializer(many=True),
    )
    @action(detail=False, pagination_class=None, filter_backends=[])
    def slowest(self, request: Request) -> Response:
        """The 20 tests of a project that take longest by their mean in the recent pipelines."""
        seen = Project.objects.visible_to(request.user)
        project = get_object_or_404(seen, slug=request.query_params.get("project", ""))
        return Response(SlowSerializer(case_history.slowest(project), many=True).data)

    def paginate_queryset(self, queryset: Any) -> Any:
        """Whether a case is flaky is asked for those of the page alone: it is a question each."""
        page = super().paginate_queryset(queryset)
        shown = TestCase.objects.filter(pk__in=[case.pk for case in page or []])
        asked = shown.annotate(passed_later=case_history.passed_later())
        flaky = set(asked.filter(passed_later=True).values_list("pk", flat=True))
        for case in page or []:
            case.passed_later = case.pk in flaky
        return page
