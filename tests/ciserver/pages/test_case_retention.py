"""Test cases go when their pipeline ended long ago; what is told of them stays true."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from ciserver.pipelines.models import CoverageFile, Job, JobKind, Pipeline, TestCase
from ciserver.pipelines.runner import casekeeping
from ciserver.pipelines.runner.casekeeping import forget_old_cases
from tests.ciserver.pages.seeding import make_job, make_pipeline
from tests.conftest import api_as


def ran(project: Any, number: int, days: float | None, cases: int = 3) -> Job:
    """A pipeline that ended so many days ago, or has not."""
    pipeline = make_pipeline(project, number)
    ended = None if days is None else timezone.now() - timedelta(days=days)
    Pipeline.objects.filter(pk=pipeline.pk).update(finished_at=ended)
    job = make_job(pipeline, 2, "unit", JobKind.TEST)
    rows = (TestCase(job=job, suite="a", name=f"t{n}", outcome="passed") for n in range(cases))
    TestCase.objects.bulk_create(rows)
    CoverageFile.objects.create(job=job, path="a.py", covered_lines="1")
    return job


def left(job: Job) -> tuple[int, int, int]:
    job.refresh_from_db()
    return job.cases.count(), job.coverage_files.count(), job.cases_removed


def test_cases_of_old_pipelines_go_and_others_stay(project: Any) -> None:
    days = settings.GANTRY.case_days
    old, young, running = (
        ran(project, 1, days + 1),
        ran(project, 2, days - 1),
        ran(project, 3, None),
    )
    assert forget_old_cases() == 4
    assert left(old) == (0, 0, 3)
    assert left(young) == left(running) == (3, 1, 0)
    assert forget_old_cases() == 0


def test_many_go_over_several_rounds(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(casekeeping, "AT_A_TIME", 8)
    monkeypatch.setattr(casekeeping, "OF_A_STATEMENT", 3)
    jobs = [ran(project, number, 1000 - number, 5) for number in (1, 2, 3)]
    CoverageFile.objects.all().delete()
    rounds = []
    while count := forget_old_cases():
        rounds.append((count, [left(job)[0] for job in jobs]))
    assert rounds == [(8, [0, 2, 5]), (7, [0, 0, 0])]
    assert [left(job)[2] for job in jobs] == [5, 5, 5]


def test_a_tests_history_goes_on_with_what_is_there(project: Any, alice: Any, sign_in: Any) -> None:
    ran(project, 1, 1000)
    ran(project, 2, 1)
    forget_old_cases()
    page = sign_in(alice)
    html = page.get("/projects/hello/tests/?name=t1&suite=a").content.decode()
    assert "#2 unit" in html and "#1 unit" not in html
    assert "t1" in page.get("/projects/hello/tests/").content.decode()
    rows = api_as(alice).get("/api/v1/cases/?project=hello&name=t1").json()["results"]
    assert [row["pipeline"] for row in rows] == [2]


def test_the_job_says_how_many_went_and_how_many_never_were_kept(
    project: Any, alice: Any, sign_in: Any
) -> None:
    old, young = ran(project, 1, 1000), ran(project, 2, 1)
    Job.objects.filter(pk=young.pk).update(cases_left_out=1234)
    forget_old_cases()
    page, api = sign_in(alice), api_as(alice)
    assert (
        "3 cases were removed as old." in page.get("/projects/hello/pipelines/1/").content.decode()
    )
    html = page.get("/projects/hello/pipelines/2/").content.decode()
    assert "1,234 more cases of its reports are not kept" in html
    assert "removed as old" not in html
    told = {}
    for job in (old, young):
        jobs = api.get(f"/api/v1/pipelines/{job.pipeline_id}/").json()["jobs"]
        (it,) = (one for one in jobs if one["name"] == "unit")
        told[job.pk] = (it["cases_removed"], it["cases_left_out"], len(it["cases"]))
    assert told == {old.pk: (3, 0, 0), young.pk: (0, 1234, 3)}
