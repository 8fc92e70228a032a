"""What counts as drift."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.utils import timezone

from ciserver.releases import drift, naming, services
from ciserver.releases.models import Environment, Host, Running
from ciserver.releases.targets.spec import Check, Container, ImageFacts

pytestmark = pytest.mark.django_db
ADDRESS = "127.0.0.1:4000"


@pytest.fixture
def row(hello: Any, passed: Any) -> Running:
    qa = hello.environments.get(name="qa")
    host = Host.objects.create(name="edge", kind="local")
    qa.hosts.add(host)
    release = services.make_release(passed())
    return Running.objects.create(
        environment=qa, host=host, release=release, container_id="c1", digest=release.digest,
        since=timezone.now(),
    )  # fmt: skip


def container(environment: Environment, **fields: Any) -> Container:
    there = Container(
        id="c1", name="web", image_id="sha256:config", labels=naming.labels_of(environment),
        running=True, oom_killed=False, restarts=0, address=ADDRESS,
    )  # fmt: skip
    return replace(there, **fields)


def facts(config: str) -> ImageFacts:
    return ImageFacts(digest="sha256:m", config_digest=config, layers=(), port=None, check=Check())


def test_each_difference_has_its_sentence(row: Running) -> None:
    qa = row.environment
    routes = {naming.server_name(qa): ADDRESS}
    right = container(qa)
    assert drift.drift_of(row, [right], routes, facts=facts("sha256:config")) == ""
    assert drift.drift_of(row, [], routes) == "its container is gone"
    stopped = container(qa, running=False)
    assert drift.drift_of(row, [stopped], routes) == "its container has stopped"
    other = drift.drift_of(row, [right], routes, facts=facts("sha256:else"))
    assert other == "it runs the image sha256:config, not that of v1"
    assert drift.drift_of(row, [right], {}) == f"its traffic goes to nowhere, not to {ADDRESS}"
    twin = container(qa, id="c2", name="twin")
    assert drift.drift_of(row, [right, twin], routes) == "also here: twin"
    foreign = container(qa, id="c3", labels={"project": "other"})
    assert drift.drift_of(row, [right, foreign], routes) == "", "another environment's is its own"
    qa.hosts.clear()
    assert "edge is no longer a host of qa" in drift.drift_of(row, [right], routes)


def test_a_host_that_cannot_be_asked_is_told_as_well(row: Running, api: Any) -> None:
    Host.objects.filter(pk=row.host_id).update(kind="no-such-kind")
    assert drift.look() == 1
    assert drift.look() == 0
    row.refresh_from_db()
    assert row.drift.startswith("edge cannot be looked at: ")
    assert row.seen_at is not None
    body = api.get("/api/v1/environments/?name=qa").json()["results"][0]
    assert body["running"][0]["drift"] == row.drift


def test_nobody_is_looked_at_while_a_deployment_runs_there(row: Running) -> None:
    Host.objects.filter(pk=row.host_id).update(kind="no-such-kind")
    row.environment.deployments.update(state="running")
    assert drift.look() == 0
