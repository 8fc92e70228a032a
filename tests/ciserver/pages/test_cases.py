"""Tests over time: history, slowest, and flaky is what failed and then passed at one commit."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from ciserver.pipelines import case_history, timeline
from ciserver.pipelines.models import JobKind, Pipeline, TestCase
from tests.ciserver.pages.seeding import make_job, make_pipeline
from tests.conftest import api_as


def ran(project: Any, number: int, commit: str, **outcomes: str) -> Pipeline:
    pipeline = make_pipeline(project, number, commit=commit * 40)
    job = make_job(pipeline, 2, "unit", JobKind.TEST)
    for place, (name, outcome) in enumerate(outcomes.items(), start=1):
        TestCase.objects.create(
            job=job, suite="tests.a", name=name, outcome=outcome, seconds=place / 10
        )
    return pipeline


@pytest.fixture
def runs(project: Any) -> Any:
    ran(project, 1, "a", shaky="failed", broken="failed", solid="passed")
    ran(project, 2, "a", shaky="passed", broken="failed", solid="passed")
    ran(project, 3, "b", shaky="failed", broken="passed", solid="passed", left="skipped")
    return project


def test_failed_then_passed_at_the_same_commit_is_flaky(runs: Any) -> None:
    found = case_history.flaky(runs)
    assert [(test.name, test.times, test.last.number) for test in found] == [("shaky", 1, 1)]


def test_passed_then_failed_is_not_flaky(project: Any) -> None:
    ran(project, 1, "a", one="passed")
    ran(project, 2, "a", one="failed")
    assert case_history.flaky(project) == []


def test_the_same_name_in_another_project_changes_nothing(runs: Any, alice: Any) -> None:
    from tests.ciserver.pages.seeding import make_project

    other = make_project("other", alice)
    ran(other, 1, "a", broken="passed")
    assert [test.name for test in case_history.flaky(runs)] == ["shaky"]


def test_the_slowest_come_first_and_skipped_runs_do_not_count(runs: Any) -> None:
    found = case_history.slowest(runs)
    assert [test.name for test in found] == ["solid", "broken", "shaky"]
    assert found[0].runs == 3


def test_the_page_lists_flaky_and_slow_tests(runs: Any, alice: Any, sign_in: Any) -> None:
    html = sign_in(alice).get("/projects/hello/tests/").content.decode()
    assert html.index(">shaky<") < html.index("Slowest") < html.index(">solid<")


def test_the_page_of_a_test_shows_every_run(runs: Any, alice: Any, sign_in: Any) -> None:
    url = "/projects/hello/tests/?name=shaky&suite=tests.a"
    html = sign_in(alice).get(url).content.decode()
    assert [html.count(f"#{number} unit") for number in (1, 2, 3)] == [1, 1, 1]
    assert html.count(">flaky</span>") == 1
    assert sign_in(alice).get("/projects/hello/tests/?name=none").status_code == 404


def test_the_page_says_what_to_do_where_there_are_none(
    project: Any, alice: Any, sign_in: Any
) -> None:
    html = sign_in(alice).get("/projects/hello/tests/").content.decode()
    assert "tests.NAME.junit" in html


def test_a_name_is_text_and_its_link_leads_to_it(project: Any, alice: Any, sign_in: Any) -> None:
    name = "<b>&suite=x?#é/"
    pipeline = make_pipeline(project, 1)
    job = make_job(pipeline, 2, "unit", JobKind.TEST)
    TestCase.objects.create(job=job, suite="a&b", name=name, outcome="passed", seconds=1)
    client = sign_in(alice)
    html = client.get("/projects/hello/tests/").content.decode()
    assert "<b>&suite" not in html
    link = html.split('class="wrap" href="')[1].split('"')[0].replace("&amp;", "&")
    answer = client.get(f"/projects/hello/tests/{link}")
    assert answer.status_code == 200
    assert answer.context["name"] == name


def test_the_api_tells_history_and_flaky(runs: Any, alice: Any, charlie: Any) -> None:
    api = api_as(alice)
    rows = api.get("/api/v1/cases/?project=hello&name=shaky").json()["results"]
    assert [(row["pipeline"], row["outcome"], row["flaky"]) for row in rows] == [
        (3, "failed", False),
        (2, "passed", False),
        (1, "failed", True),
    ]
    rows = api.get("/api/v1/cases/?flaky=1").json()["results"]
    assert [row["name"] for row in rows] == ["shaky"]
    assert api.get("/api/v1/cases/?pipeline=x").status_code == 400
    assert api_as(charlie).get("/api/v1/cases/").json()["results"] == []


def test_a_stranger_sees_no_tests(runs: Any, charlie: Any, sign_in: Any) -> None:
    assert sign_in(charlie).get("/projects/hello/tests/").status_code == 404


def test_what_a_pipelines_page_tells_takes_as_long_whatever_was_before(runs: Any) -> None:
    """Work, not queries: what grew with each earlier pipeline took seconds after a year."""
    if connection.vendor != "sqlite":
        pytest.skip("its steps are counted")

    def steps_of(pipeline: Pipeline) -> int:
        count = 0

        def counting() -> int:
            nonlocal count
            count += 1
            return 0

        connection.ensure_connection()
        connection.connection.set_progress_handler(counting, 100)
        try:
            assert len(timeline.view_of(pipeline).jobs) == 1
        finally:
            connection.connection.set_progress_handler(None, 0)
        return count

    cases = {f"t{number}": "passed" for number in range(200)}
    before = steps_of(ran(runs, 9, "z", **cases))
    for number, commit in enumerate("ghijklmnopqrstuvwxy", start=20):
        ran(runs, number, commit, **cases)
    assert steps_of(ran(runs, 10, "Z", **cases)) < 1.3 * before


def test_a_pipelines_page_shows_what_failed_then_what_is_flaky(
    runs: Any, alice: Any, sign_in: Any
) -> None:
    html = sign_in(alice).get("/projects/hello/pipelines/2/").content.decode()
    assert html.index("broken</a>") < html.index("shaky</a>") < html.index("solid</a>")
    assert html.count("It failed before, at the same commit") == 1
