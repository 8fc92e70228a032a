"""logs --grep and --line find lines without reading the whole log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


def test_lines_that_hold_the_words_come_with_job_and_number(
    logged_in: Gantry, history: Any
) -> None:
    ran = logged_in("logs", "hello", "2", "--grep", "ASSERTIONERROR")
    assert ran.exit_code == 0, ran.err
    [line] = ran.out.splitlines()
    head, _, text = line.partition("  ")
    assert head.startswith("unit:")
    assert "AssertionError: assert 'Hello, Bo' == 'Hello, Bob'" in text
    found = json.loads(logged_in("logs", "hello", "2", "-g", "hello", "--json").out)
    assert {row["job"] for row in found} == {"build", "unit"}
    only = logged_in("logs", "hello", "2", "-g", "hello", "--job", "build", "--json")
    assert json.loads(only.out) == [row for row in found if row["job"] == "build"]
    assert logged_in("logs", "hello", "2", "--grep", "nobody says this").out == ""


def test_more_of_them_than_one_answer_holds(logged_in: Gantry, history: Any) -> None:
    from ciserver.pipelines.logs import LogWriter

    with LogWriter(history.pipelines.get(number=1).jobs.get(name="push").log_path) as log:
        log.write(0, "out", "".join(f"row {number}\n" for number in range(250)).encode())
    found = json.loads(logged_in("logs", "hello", "1", "--grep", "row", "--json").out)
    assert [row["text"] for row in found] == [f"row {number}" for number in range(250)]


def test_a_line_is_shown_with_those_around_it(logged_in: Gantry, history: Any) -> None:
    words = ["logs", "hello", "2", "--line", "20"]
    lines = json.loads(logged_in(*words, "--json").out)
    assert [(row["job"], row["number"]) for row in lines] == [("unit", at) for at in range(10, 31)]
    assert logged_in(*words).out.splitlines()[10].startswith("unit:20  ")
    words = ["logs", "hello", "2", "--job", "build", "--line"]
    assert logged_in(*words, "1").out.startswith("build:1  Commit read")
    ran = logged_in(*words, "5000")
    assert (ran.exit_code, "has no line 5000" in ran.err) == (4, True)


def test_what_cannot_be_searched_says_so(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("logs", "hello", "1", "--line", "3")
    assert ran.exit_code == 2
    assert "Name one by --job: build, unit, push." in ran.err
    ran = logged_in("logs", "hello", "1", "--grep", "x", "--job", "moon")
    assert ran.exit_code == 4
    assert "Its jobs: build, unit, push." in ran.err
    for words in (["hello@qa", "--grep", "x"], ["hello", "-f", "--grep", "x"]):
        assert logged_in("logs", *words).exit_code == 2
