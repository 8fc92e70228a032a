"""The badge: what it says, to whom, and for how long."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from django.test import Client

from ciserver.pipelines.models import Pipeline, State
from ciserver.projects.badges import badge_path
from tests.ciserver.pages import seeding


@pytest.fixture
def hello(alice: Any) -> Any:
    return seeding.make_project("hello", alice)


def said(path: str, **asked: str) -> str:
    answer = Client().get(path, asked)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/svg+xml"
    assert "no-cache" in answer.headers["Cache-Control"]
    return str(ElementTree.fromstring(answer.content).get("aria-label"))


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (State.PASSED, "passing"),
        (State.FAILED, "failing"),
        (State.CANCELLED, "cancelled"),
        (State.RUNNING, "running"),
        (State.QUEUED, "queued"),
    ],
)
def test_it_tells_the_newest_pipelines_state_to_whoever_has_the_address(
    hello: Any, state: State, word: str
) -> None:
    seeding.make_pipeline(hello, 1)
    seeding.make_pipeline(hello, 2, state=state)
    assert said(badge_path(hello)) == f"gantry: {word}"


def test_another_branch_has_its_own(hello: Any) -> None:
    seeding.make_pipeline(hello, 1)
    seeding.make_pipeline(hello, 2, state=State.FAILED, ref="refs/heads/feature/x")
    assert said(badge_path(hello)) == "gantry: passing"
    assert said(badge_path(hello), branch="feature/x") == "gantry: failing"
    assert said(badge_path(hello), branch="no-such") == "gantry: no pipeline"


def test_a_wrong_key_and_an_unknown_project_look_the_same(hello: Any) -> None:
    key = badge_path(hello).rpartition("/")[2]
    for path in ("/projects/hello/badge/0123456789.svg", f"/projects/other/badge/{key}"):
        assert Client().get(path).status_code == 404


def test_the_address_ends_with_its_project_also_if_the_name_is_given_again(
    hello: Any, alice: Any
) -> None:
    kept = badge_path(hello)
    hello.delete()
    again = seeding.make_project("hello", alice)
    seeding.make_pipeline(again, 1, state=State.FAILED)
    assert Client().get(kept).status_code == 404
    assert said(badge_path(again)) == "gantry: failing"


def test_it_is_sent_again_only_when_the_state_changed(hello: Any) -> None:
    seeding.make_pipeline(hello, 1, state=State.RUNNING)
    path = badge_path(hello)
    tag = Client().get(path).headers["ETag"]
    assert Client().get(path, headers={"If-None-Match": tag}).status_code == 304
    Pipeline.objects.update(state=State.PASSED)
    assert Client().get(path, headers={"If-None-Match": tag}).status_code == 200


def test_the_projects_page_shows_it_with_the_words_for_a_readme(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    text = sign_in(alice).get("/projects/hello/").content.decode()
    assert f'src="{badge_path(hello)}"' in text
    assert "[![gantry](http://" in text
