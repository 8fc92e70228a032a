"""images, image and find."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pushed(alice: Any) -> Any:
    from tests.ciserver.pages.seeded_images import make_image
    from tests.ciserver.pages.seeding import make_passed, make_project

    project = make_project("harbour", alice)
    for number in (1, 2):
        make_image(make_passed(project, number), team="greeters")
    return project


def test_images_are_found_and_their_layers_shown(logged_in: Gantry, pushed: Any) -> None:
    rows = json.loads(logged_in("images", "team=greeters", "--project", "harbour", "--json").out)
    assert [row["pipeline"] for row in rows] == [2, 1]
    assert "5.3 MiB" in logged_in("images", "harbour").out
    out = logged_in("image", str(rows[0]["id"])).out
    assert "Dockerfile:4" in out
    assert "RUN pip install" in out
    assert "3.0 MiB" in out  # wasted


def test_two_images_are_compared(logged_in: Gantry, pushed: Any) -> None:
    new, old = json.loads(logged_in("images", "--json").out)[:2]
    out = logged_in("image", str(new["id"]), "--against", str(old["id"])).out
    assert "BUILD" in out
    assert "app/hello.py" in out
    assert "2 files differ" in out


def test_anything_is_found_by_a_few_words(logged_in: Gantry, pushed: Any) -> None:
    assert "/projects/harbour/pipelines/2/" in logged_in("find", "harbour", "#2").out
    assert json.loads(logged_in("find", "no-such-thing", "--json").out) == []
