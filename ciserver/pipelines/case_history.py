"""How a project's tests did over time: history, what is slow, what cannot be trusted."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Avg, Count, Exists, Max, OuterRef, QuerySet

from ciserver.pipelines.models import Pipeline, TestCase
from ciserver.projects.models import Project

BAD = (TestCase.Outcome.FAILED, TestCase.Outcome.ERROR)
RECENT = 100  # pipelines


@dataclass(frozen=True, slots=True)
class Flaky:
    """A test that failed and then passed at the same commit, ``times`` times lately."""

    suite: str
    name: str
    times: int
    last: Pipeline


@dataclass(frozen=True, slots=True)
class Slow:
    """A test's mean and worst time in seconds over its recent runs."""

    suite: str
    name: str
    mean: float
    worst: float
    runs: int


def recent_cases(project: Project) -> QuerySet[TestCase]:
    """The cases of the newest pipelines of ``project``."""
    newest = project.pipelines.order_by("-pk").values_list("pk", flat=True)[:RECENT]
    return TestCase.objects.filter(job__pipeline__in=list(newest))


def passed_later() -> Exists:
    """Did the same test of the same job pass later, at the same commit of its project?"""
    later = TestCase.objects.filter(
        name=OuterRef("name"),
        suite=OuterRef("suite"),
        outcome=TestCase.Outcome.PASSED,
        job__name=OuterRef("job__name"),
        job__pipeline__project=OuterRef("job__pipeline__project"),
        job__pipeline__commit=OuterRef("job__pipeline__commit"),
        pk__gt=OuterRef("pk"),
    )
    return Exists(later)


def failed_before(pipeline: Pipeline) -> dict[str, dict[tuple[str, str], int]]:
    """Which tests have failed at the commit of ``pipeline``: by job, (suite, name) and the key of
    the first such case. They are few: to ask whether each that passed did takes far longer."""
    bad = TestCase.objects.filter(
        outcome__in=BAD,
        job__pipeline__project=pipeline.project_id,
        job__pipeline__commit=pipeline.commit,
    )
    found: dict[str, dict[tuple[str, str], int]] = {}
    for job, suite, name, pk in bad.order_by("-pk").values_list("job__name", "suite", "name", "pk"):
        found.setdefault(job, {})[suite, name] = pk
    return found


def with_flaky(cases: QuerySet[TestCase]) -> QuerySet[TestCase]:
    """``cases`` with ``passed_later``: a bad one for which it holds is flaky."""
    return cases.annotate(passed_later=passed_later())


def flaky(project: Project) -> list[Flaky]:
    """Those of the recent pipelines, the worst first."""
    failed = recent_cases(project).filter(passed_later(), outcome__in=BAD)
    rows = list(
        failed.order_by()
        .values("suite", "name")
        .annotate(times=Count("job__pipeline", distinct=True), last=Max("job__pipeline"))
        .order_by("-times", "suite", "name")[:100]
    )
    pipelines = Pipeline.objects.select_related("project").in_bulk([row["last"] for row in rows])
    return [Flaky(row["suite"], row["name"], row["times"], pipelines[row["last"]]) for row in rows]


def slowest(project: Project, *, limit: int = 20) -> list[Slow]:
    """By their mean time in the recent pipelines; skipped runs do not count."""
    ran = recent_cases(project).exclude(outcome=TestCase.Outcome.SKIPPED)
    rows = ran.order_by().values("suite", "name")
    figures = rows.annotate(mean=Avg("seconds"), worst=Max("seconds"), runs=Count("pk"))
    return [Slow(**row) for row in figures.order_by("-mean", "suite", "name")[:limit]]


def history(project: Project, suite: str, name: str) -> QuerySet[TestCase]:
    """Every run of one test, newest first."""
    runs = TestCase.objects.filter(job__pipeline__project=project, suite=suite, name=name)
    return with_flaky(runs).select_related("job__pipeline__project").order_by("-pk")
