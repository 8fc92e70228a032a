"""deployments, deployment and pipeline tell what happened and why."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ciserver.cli.conftest import Gantry
from tests.ciserver.pages import seeding

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def waiting(history: Any) -> Any:
    """v1 waits for prod, asked for by bob; v2 failed in qa."""
    qa, prod = history.environments.order_by("position")
    failed = seeding.make_release(seeding.make_passed(history, 3), 2)
    why = "v2 did not become healthy in 60 s on local [qa]."
    seeding.deploy(failed, qa, state="failed", reason=why, by="gantry")
    return prod.deployments.create(
        release=history.releases.get(number=1), kind="promotion", state="waiting",
        reason="It needs 1 more approval.", requested_by="bob",
    )  # fmt: skip


def test_deployments_say_who_how_it_went_and_what_travelled(
    logged_in: Gantry, waiting: Any
) -> None:
    head, asked, failed, first = logged_in("deployments", "hello").out.splitlines()
    assert head.split()[-3:] == ["TRAVELLED", "AGE", "REASON"]
    assert asked.split()[:7] == [
        str(waiting.pk), "hello", "prod", "v1", "promotion", "waiting", "bob",
    ]  # fmt: skip
    assert asked.rstrip().endswith("It needs 1 more approval.")
    assert "v2 did not become healthy in 60 s on local [qa]." in failed
    assert "209 KiB" in first


def test_those_that_wait_for_an_approval_are_found(logged_in: Gantry, waiting: Any) -> None:
    def found(*words: str) -> list[str]:
        rows = json.loads(logged_in("deployments", *words, "--json").out)
        return [f"{row['release_name']} {row['environment']}" for row in rows]

    assert found("--state", "waiting") == ["v1 prod"]
    assert found("hello", "--environment", "qa") == ["v2 qa", "v1 qa"]
    assert found("--environment", "qa", "--state", "failed") == ["v2 qa"]
    assert found("hello", "--limit", "1") == ["v1 prod"]


def test_one_deployment_is_told_step_by_step(logged_in: Gantry, waiting: Any) -> None:
    one = waiting.release.deployments.get(environment__name="qa")
    out = logged_in("deployment", str(one.pk)).out
    lines = [line.split() for line in out.splitlines()]
    assert ["state", "succeeded"] in lines
    assert [line[1] for line in lines if line[:1] == ["local"]] == [
        "pull", "start", "check", "switch", "retire",
    ]  # fmt: skip
    assert "port 8101 now leads to it" in out
    assert json.loads(logged_in("deployment", str(one.pk), "--json").out)["id"] == one.pk
    assert "by bob (promotion)" in logged_in("deployment", str(waiting.pk)).out
    assert logged_in("deployment", "999").exit_code == 4


def test_a_pipeline_says_how_each_job_went_what_it_cost_and_why(
    logged_in: Gantry, history: Any
) -> None:
    history.pipelines.get(number=2).jobs.filter(name="push").update(
        state="skipped", reason="It needs unit, which failed."
    )
    ran = logged_in("pipeline", "hello")
    assert ran.exit_code == 0, ran.err
    out = ran.out
    assert out.startswith("hello #2 failed: gantry.yml: tests.unit: Test unit: 2 of 31 cases")
    build, unit, push = (
        line for line in out.splitlines() if line.split(" ")[0] in {"build", "unit", "push"}
    )
    assert build.split()[:9] == ["build", "passed", "1.6", "0.9", "s", "61", "MiB", "4", "of"]
    assert "2 of 31 failed" in unit
    assert push.rstrip().endswith("It needs unit, which failed.")
    assert f"unit: {history.pipelines.get(number=2).jobs.get(name='unit').hint}" in out
    assert f"Its page: {json.loads(logged_in('pipeline', 'hello', '--json').out)['page']}" in out
    assert "@sha256:" in logged_in("pipeline", "hello", "1").out


def test_of_a_job_that_was_run_again_the_last_is_told(logged_in: Gantry, history: Any) -> None:
    pipeline = history.pipelines.get(number=2)
    seeding.make_job(pipeline, 4, "unit", "test", run=2)
    lines = [line.split() for line in logged_in("pipeline", "hello", "2").out.splitlines()]
    assert [line[:2] for line in lines if line and line[0] == "unit"] == [["unit", "passed"]]
