"""Running a pipeline again: who may, when, and what of the first run stays."""

from __future__ import annotations

from typing import Any

import pytest

from ciserver.lib.models import OutboxEntry
from ciserver.lib.problems import Refused
from ciserver.pipelines import leases, services
from ciserver.pipelines.models import Pipeline
from tests.ciserver.pages import seeding
from tests.conftest import api_as


@pytest.fixture
def failed(project: Any) -> Pipeline:
    return seeding.make_failed(project, 1)


def test_a_failed_pipeline_waits_for_a_worker_again(failed: Pipeline) -> None:
    before = list(failed.jobs.values_list("pk", "state"))
    services.run_again(pipeline=failed, by="alice", only_failed=True)
    assert (failed.state, failed.run, failed.reason) == ("queued", 2, "")
    assert OutboxEntry.objects.filter(topic="pipeline.queued", object_id=failed.pk).exists()
    assert list(failed.jobs.values_list("pk", "state")) == before
    assert leases.claim(failed.pk) is not None


def test_asked_twice_it_is_refused_the_second_time(failed: Pipeline) -> None:
    twin = Pipeline.objects.get(pk=failed.pk)
    services.run_again(pipeline=failed, by="alice")
    with pytest.raises(Refused, match="being run again already"):
        services.run_again(pipeline=twin, by="bob")


@pytest.mark.parametrize("state", ["queued", "running", "passed"])
def test_only_what_did_not_pass_is_run_again(project: Any, state: str) -> None:
    pipeline = seeding.make_pipeline(project, 1, state=state)
    with pytest.raises(Refused, match="only one that did not pass"):
        services.run_again(pipeline=pipeline, by="alice")


def test_a_developer_may_ask_by_the_api_and_a_stranger_may_not(
    failed: Pipeline, bob: Any, charlie: Any
) -> None:
    address = f"/api/v1/pipelines/{failed.pk}/run-again/"
    assert api_as(charlie).post(address).status_code == 404
    assert api_as(bob).post(address, {"only_failed": True}, format="json").status_code == 202


def test_the_page_has_a_button_for_it(failed: Pipeline, client: Any, bob: Any) -> None:
    client.force_login(bob)
    assert "Re-run what failed" in client.get(failed.get_absolute_url()).content.decode()
    client.post(f"{failed.get_absolute_url()}run-again/", {"only": "failed"})
    failed.refresh_from_db()
    assert (failed.state, failed.keep_passed) == ("queued", True)
    assert "Re-run" not in client.get(failed.get_absolute_url()).content.decode()


def test_the_verdict_is_made_of_the_last_run_of_each_job(failed: Pipeline) -> None:
    seeding.make_job(failed, 4, "unit", "test", run=2)
    assert [(job.name, job.run) for job in failed.latest_jobs()] == [
        ("build", 1),
        ("unit", 2),
        ("push", 1),
    ]
