"""What is known of a pipeline from its beginning, and decides what it may read and write."""

from __future__ import annotations

from typing import Any

import pytest

from ciserver.pipelines import services
from ciserver.pipelines.models import Event, Pipeline, State
from ciserver.pipelines.triggers import told
from ciserver.releases.services import make_release

SHA = "a" * 40


def queue(project: Any, ref: str, **facts: Any) -> Pipeline:
    return services.queue(project=project, commit=SHA, ref=ref, **facts)


@pytest.mark.parametrize(
    ("ref", "event", "lane"),
    [
        ("refs/heads/main", Event.PUSH, "protected"),
        ("refs/heads/release/1.0", Event.PUSH, "protected"),
        ("refs/heads/main2", Event.PUSH, "unprotected"),
        ("refs/heads/v1", Event.PUSH, "unprotected"),
        ("refs/tags/v1", Event.TAG, "protected"),
        ("refs/tags/main", Event.TAG, "unprotected"),
    ],
)
def test_the_projects_patterns_decide_what_is_protected(
    project: Any, ref: str, event: Event, lane: str
) -> None:
    project.protected_branches, project.protected_tags = ["release/*"], ["v*"]
    made = queue(project, ref)
    assert (made.event, made.lane) == (event, lane)


def test_nothing_of_a_fork_is_protected_whatever_its_ref_is_called(project: Any) -> None:
    fork = queue(
        project, "refs/heads/main", event=Event.PULL_REQUEST, from_fork=True, pull_request=7
    )
    assert (fork.protected, fork.lane) == (False, "fork-7")


def test_tests_of_a_fork_are_told_of_no_branch_of_the_project(project: Any) -> None:
    words = told(queue(project, "refs/pull/7/head", event="pull_request", pull_request=7))
    assert (words["GANTRY_BRANCH"], words["GANTRY_TAG"]) == ("", "")
    assert (words["GANTRY_PULL_REQUEST"], words["GANTRY_EVENT"]) == ("7", "pull_request")
    assert words["GANTRY_REF"] == "refs/pull/7/head"
    words = told(queue(project, "refs/tags/v1/x"))
    assert (words["GANTRY_BRANCH"], words["GANTRY_TAG"]) == ("", "v1/x")


def test_a_later_setting_does_not_change_what_a_pipeline_was(project: Any) -> None:
    made = queue(project, "refs/heads/feature")
    project.protected_branches = ["*"]
    project.save()
    made.refresh_from_db()
    assert made.lane == "unprotected"


def test_a_fork_is_never_released(project: Any) -> None:
    fork = queue(project, "refs/pull/7/head", from_fork=True, pull_request=7)
    fork.state, fork.digest = State.PASSED, "sha256:" + "0" * 64
    with pytest.raises(ValueError, match="never released"):
        make_release(fork)


def test_the_api_tells_the_facts(api: Any, project: Any) -> None:
    queue(project, "refs/pull/7/head", event=Event.PULL_REQUEST, from_fork=True, pull_request=7)
    (row,) = api.get("/api/v1/pipelines/").json()["results"]
    facts = {name: row[name] for name in ("event", "protected", "from_fork", "pull_request")}
    assert facts == {
        "event": "pull_request",
        "protected": False,
        "from_fork": True,
        "pull_request": 7,
    }
