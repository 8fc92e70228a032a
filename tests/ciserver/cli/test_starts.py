"""gantry start and gantry schedules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ciserver.pipelines.models import Pipeline
from tests.ciserver.cli.conftest import Gantry
from tests.ciserver.pipelines.test_starts import YAML, Hosted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hosted(project: Any, tmp_path: Path) -> Iterator[Hosted]:
    with closing(Hosted(project, tmp_path / "tree")) as made:
        made.push({"gantry.yml": YAML})
        yield made


def test_start_takes_inputs_and_says_where_to_look(logged_in: Gantry, hosted: Hosted) -> None:
    ran = logged_in("start", "hello", "--ref", "main", "-i", "level=high")
    made = Pipeline.objects.get()
    assert ran.exit_code == 0
    assert f"Started pipeline #{made.number} of hello" in ran.out
    assert made.inputs["level"] == "high"
    told = json.loads(logged_in("start", "hello", "--json").out)
    assert told["number"] == made.number + 1


def test_start_tells_the_inputs_there_are(logged_in: Gantry, hosted: Hosted) -> None:
    rows = json.loads(logged_in("start", "hello", "--inputs", "--json").out)
    assert [row["name"] for row in rows] == ["level", "count", "dry", "note"]
    assert "low, high" in logged_in("start", "hello", "--inputs").out
    assert not Pipeline.objects.exists()


def test_what_is_no_input_is_refused(logged_in: Gantry, hosted: Hosted) -> None:
    assert logged_in("start", "hello", "-i", "level").exit_code == 2
    ran = logged_in("start", "hello", "-i", "levl=high")
    assert ran.exit_code == 4
    assert "The input levl cannot be used: there is no such input" in ran.err


def test_schedules_are_listed(logged_in: Gantry, hosted: Hosted) -> None:
    assert logged_in("schedules", "hello").exit_code == 0
    hosted.queue(hosted.git("rev-parse", "HEAD"))
    assert "0 3 * * *" in logged_in("schedules", "hello").out
