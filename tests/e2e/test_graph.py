"""A pipeline whose tests need one another, as its author sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.service import BASE, Repository, Service

pytestmark = [pytest.mark.e2e, pytest.mark.root]

DOCKERFILE = f"""
FROM {BASE} AS test
CMD ["python3", "-c", "import os; print('in', os.environ.get('LANGUAGE'))"]
FROM test AS app
"""
GREEN = """
tests:
  unit: {stage: test, memory: 64m, cpus: 0.5}
  page: {stage: test, memory: 64m, cpus: 0.5, needs: unit, matrix: {LANGUAGE: [en, de]}}
  tagged: {stage: test, when: {tag: "v*"}}
"""
RED = """
tests:
  unit: {stage: test, command: [sh, -c, "echo again; exit 3"], memory: 64m, retries: 1}
  page: {stage: test, needs: unit, memory: 64m}
  other: {stage: test, memory: 64m}
"""


def test_tests_follow_what_they_need_and_others_are_left_out(
    service: Service, tmp_path: Path
) -> None:
    service.make_project("graph")
    clone = Repository(tmp_path / "graph", service, "graph")

    commit = clone.push({"Dockerfile": DOCKERFILE, "gantry.yml": GREEN})
    pipeline = service.pipeline_of("graph", commit)
    assert pipeline["state"] == "passed", pipeline
    jobs = {job["name"]: job for job in pipeline["jobs"]}
    assert list(jobs) == ["build", "unit", "page (en)", "page (de)", "tagged", "push"]
    assert "in de" in service.log_of(jobs["page (de)"])
    for page in (jobs["page (en)"], jobs["page (de)"]):
        assert page["needs"] == ["unit"]
        assert page["started_at"] >= jobs["unit"]["finished_at"]
    assert jobs["tagged"]["state"] == "skipped"
    assert jobs["tagged"]["reason"] == "It is not for a branch, and this is branch main."

    commit = clone.push({"gantry.yml": RED})
    pipeline = service.pipeline_of("graph", commit)
    jobs = {job["name"]: job for job in pipeline["jobs"]}
    states = {name: job["state"] for name, job in jobs.items()}
    assert (states["unit"], states["page"], states["other"]) == ("failed", "skipped", "passed")
    assert jobs["page"]["reason"] == "It needs unit, which failed."
    assert [step["receipt"]["exit_code"] for step in jobs["unit"]["steps"]] == [3, 3]
    assert "Trying again (1 of 1)." in service.log_of(jobs["unit"])
    assert pipeline["reason"].startswith("Test unit: The command ended with exit code 3.")
