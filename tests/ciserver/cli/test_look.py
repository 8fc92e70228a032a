"""status, projects, pipelines, releases and logs show what the service knows."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from ciserver.cli.progress import told
from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)
CHECKOUT = Path(__file__).resolve().parents[3]


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_status_tells_what_runs_where(logged_in: Gantry, history: Any) -> None:
    qa, prod = rows(logged_in("status").out)[1:]
    assert qa[:3] == ["hello", "qa", "v1"]
    assert "healthy" in qa
    assert prod == ["hello", "prod", "nothing", "yet"]


def test_status_as_json_has_the_digest(logged_in: Gantry, history: Any) -> None:
    environments = json.loads(logged_in("status", "--json").out)
    running = environments[0]["running"][0]
    assert running["digest"] == history.releases.get().digest


def test_projects_tell_where_to_push(logged_in: Gantry, history: Any) -> None:
    project = rows(logged_in("projects").out)[1]
    assert project[0] == "hello"
    assert project[1].endswith("/git/hello.git")


def test_pipelines_are_newest_first_and_say_why_one_failed(logged_in: Gantry, history: Any) -> None:
    newest, oldest = logged_in("pipelines", "hello").out.splitlines()[1:]
    assert newest.split()[:3] == ["hello", "#2", "failed"]
    assert "gantry.yml: tests.unit: Test unit: 2 of 31 cases failed" in newest
    assert oldest.split()[:3] == ["hello", "#1", "passed"]


def test_more_pipelines_than_a_page_holds(logged_in: Gantry, history: Any) -> None:
    from tests.ciserver.pages.seeding import make_pipeline

    for number in range(3, 206):
        make_pipeline(history, number)
    assert len(json.loads(logged_in("pipelines", "--limit", "202", "--json").out)) == 202
    assert len(json.loads(logged_in("pipelines", "--limit", "60", "--json").out)) == 60
    assert "2 failed" in logged_in("logs", "hello", "2").out


def test_one_by_its_number_is_one_question(
    logged_in: Gantry, history: Any, asked: list[str]
) -> None:
    from ciserver.cli import settings
    from ciserver.cli.client import Client
    from ciserver.cli.look import find_pipeline
    from ciserver.cli.promotions import find_release
    from tests.ciserver.pages.seeding import make_pipeline

    for number in range(3, 56):
        make_pipeline(history, number)
    with Client(settings.load()) as client:
        assert find_pipeline(client, "hello", 1)["number"] == 1
        assert find_pipeline(client, "hello", 0)["number"] == 55
        assert find_release(client, "hello", "v1")["number"] == 1
    assert asked == ["/pipelines/", "/pipelines/", "/releases/"]


def test_pipelines_of_a_branch_or_in_a_state(logged_in: Gantry, history: Any) -> None:
    from tests.ciserver.pages.seeding import make_pipeline

    make_pipeline(history, 3, ref="refs/heads/feature/x")
    make_pipeline(history, 4, ref="refs/tags/feature/x")

    def numbers(*words: str) -> list[int]:
        return [row["number"] for row in json.loads(logged_in("pipelines", *words, "--json").out)]

    assert numbers("hello", "--branch", "feature/x") == [3]
    assert numbers("--state", "failed") == [2]
    assert numbers("hello", "--branch", "main", "--state", "passed") == [1]
    assert numbers("hello", "--branch", "feature") == []


def test_the_log_of_a_job_that_ended_is_not_asked_for_again_until_the_end(
    logged_in: Gantry, history: Any, asked: list[str]
) -> None:
    from ciserver.cli import settings
    from ciserver.cli.client import Client
    from ciserver.cli.logs import LogReader

    pipeline = history.pipelines.get(number=1)
    build, unit, push = pipeline.jobs.order_by("position")
    pipeline.jobs.filter(pk=unit.pk).update(state="running")
    pipeline.jobs.filter(pk=push.pk).update(state="queued")
    history.pipelines.filter(number=1).update(state="running")
    with Client(settings.load()) as client:
        reader = LogReader(client, "", as_json=True, at_once=False)
        running = client.get(f"/pipelines/{pipeline.pk}/")
        reader.read(running)
        assert asked.count(f"/jobs/{build.pk}/log/") == 2  # to its end
        known = asked.count(f"/jobs/{unit.pk}/log/")
        reader.read(running)
        assert asked.count(f"/jobs/{build.pk}/log/") == 2
        assert asked.count(f"/jobs/{unit.pk}/log/") == known + 1
        assert f"/jobs/{push.pk}/log/" not in asked
        reader.read(running | {"state": "failed"})
        assert asked.count(f"/jobs/{build.pk}/log/") == 3
    assert [line["line"] for line in reader.lines].count("Commit read: 12 files, 88 kB") == 1


def test_releases_show_digest_and_commit(logged_in: Gantry, history: Any) -> None:
    release = history.releases.get()
    shown = rows(logged_in("releases").out)[1]
    assert shown[:4] == ["hello", "v1", release.commit[:8], release.digest[7:19]]


def test_logs_of_a_green_pipeline_are_whole_and_exit_0(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("logs", "hello", "1", "--follow")
    assert ran.exit_code == 0
    assert "build  Commit read: 12 files, 88 kB" in ran.out
    assert f"push  Pushed {history.pipelines.get(number=1).repository}@sha256:" in ran.out


def test_logs_of_a_failed_pipeline_exit_1_and_say_why(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("logs", "hello")
    assert ran.exit_code == 1
    assert "Pipeline #2 failed: gantry.yml: tests.unit: Test unit: 2 of 31 cases" in ran.err


def test_logs_of_one_job_as_json(logged_in: Gantry, history: Any) -> None:
    lines = json.loads(logged_in("logs", "hello", "1", "--job", "push", "--json").out)
    assert {line["job"] for line in lines} == {"push"}
    assert lines[1]["line"] == "209 KiB travelled, 31 MiB were there."


def test_a_log_longer_than_one_answer_arrives_whole_and_once(
    logged_in: Gantry, history: Any
) -> None:
    from ciserver.pipelines.logs import LogWriter

    job = history.pipelines.get(number=1).jobs.get(name="push")
    expected = [f"line {number} {'x' * 50}" for number in range(12_000)]
    with LogWriter(job.log_path) as log:
        log.write(0, "out", "\n".join(expected).encode())
    lines = json.loads(logged_in("logs", "hello", "1", "--job", "push", "--json").out)
    assert [line["line"] for line in lines] == expected


def test_what_is_not_there_is_exit_code_4_with_the_next_step(
    logged_in: Gantry, history: Any
) -> None:
    ran = logged_in("logs", "hello", "77")
    assert ran.exit_code == 4
    assert "hello has no pipeline #77." in ran.err
    assert "gantry pipelines hello" in ran.err


def test_a_log_that_is_followed_as_json_is_an_object_in_each_line(
    logged_in: Gantry, history: Any
) -> None:
    lines = [
        json.loads(line)
        for line in logged_in("logs", "hello", "1", "-f", "--json").out.splitlines()
    ]
    assert {line["job"] for line in lines} == {"build", "unit", "push"}
    assert lines == json.loads(logged_in("logs", "hello", "1", "--json").out)


def test_in_a_terminal_a_line_below_the_log_tells_how_far_each_job_is(
    live_server: Any, token: str, history: Any
) -> None:
    ours, theirs = pty.openpty()
    ran = subprocess.Popen(
        [sys.executable, "-m", "ciserver.cli", "logs", "hello", "1", "--follow"],
        cwd=CHECKOUT,
        env=os.environ
        | {"GANTRY_URL": live_server.url, "GANTRY_TOKEN": token, "TERM": "xterm", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    with suppress(OSError):  # the other end is closed
        while piece := os.read(ours, 65536):
            said += piece
    os.close(ours)
    assert ran.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    assert "#1 · ✓ build" in text
    assert "Pipeline #1 passed. Next: gantry releases hello" in text


def test_progress_names_what_runs_and_since_when() -> None:
    def job(name: str, state: str, started: str | None = None) -> dict[str, Any]:
        return {"name": name, "state": state, "started_at": started}

    now = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)
    began = "2026-01-01T12:00:00Z"
    jobs = [job("build", "passed"), job("a[b]", "running", began), job("push", "queued"),
            job("left-out", "skipped")]  # fmt: skip
    line = told({"number": 7, "state": "running", "reason": "", "jobs": jobs}, now)
    assert Text.from_markup(line).plain == "#7 · ✓ build · a[b] 30 s · push"
    waits = {"number": 7, "state": "queued", "reason": "two others [run]", "jobs": []}
    assert Text.from_markup(told(waits, now)).plain == "#7 waits: two others [run]"
