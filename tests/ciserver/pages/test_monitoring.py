"""What other tools ask Gantry: metrics, service discovery and build lamps."""

from __future__ import annotations

import base64
import subprocess
from typing import Any
from xml.etree import ElementTree

import pytest
from django.test import Client
from django.utils import timezone
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.conftest import api_as

pytestmark = pytest.mark.django_db
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def root(alice: Any) -> Any:
    alice.is_superuser = True
    alice.save()
    return alice


def samples(client: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = client.get("/metrics", headers={"accept": OPENMETRICS}).content.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_promtool_is_content_with_the_metrics(root: Any, hello: Any) -> None:
    text = api_as(root, "read").get("/metrics").content
    found = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (found.returncode, found.stdout + found.stderr) == (0, b"")


def test_metrics_count_what_the_database_holds(root: Any, hello: Any) -> None:
    from ciserver.pipelines.models import Pipeline, State
    from ciserver.releases.models import Running

    found = samples(api_as(root, "read"))
    passed = Pipeline.objects.filter(state=State.PASSED).count()
    assert passed
    assert found[of("gantry_pipelines_finished_total", project="hello", state="passed")] == passed
    running = Running.objects.filter(environment__name="prod").get()
    labels = {
        "project": "hello",
        "environment": "prod",
        "host": "local",
        "release": running.release.name,
    }
    assert found[of("gantry_running_healthy", **labels)] == 1
    assert of("gantry_running_info", **labels, digest=running.digest, commit=running.release.commit)
    assert found[of("gantry_audit_log_intact")] == 1


def test_a_state_that_nothing_is_in_is_zero_and_not_missing(root: Any) -> None:
    found = samples(api_as(root, "read"))
    for state in ("queued", "running"):
        assert found[of("gantry_pipelines", state=state)] == 0
        assert found[of("gantry_deployments", state=state)] == 0
    assert found[of("gantry_pipelines_oldest_queued_seconds")] == 0


def test_the_age_of_what_waits_and_the_time_of_what_ran_are_seconds(root: Any, hello: Any) -> None:
    from datetime import timedelta

    from ciserver.pipelines.models import Job, Pipeline, State
    from tests.ciserver.pages.seeding import make_pipeline

    waits = make_pipeline(hello, 900, state=State.QUEUED)
    since = timezone.now() - timedelta(seconds=90)
    Pipeline.objects.filter(state=State.QUEUED).update(created_at=since)
    assert waits.state == State.QUEUED
    found = samples(api_as(root, "read"))
    assert 90 <= found[of("gantry_pipelines_oldest_queued_seconds")] < 150
    builds = Job.objects.filter(kind="build", started_at__isnull=False, finished_at__isnull=False)
    took = sum(job.seconds or 0 for job in builds)
    assert found[of("gantry_job_duration_seconds_count", kind="build")] == builds.count()
    assert found[of("gantry_job_duration_seconds_sum", kind="build")] == pytest.approx(
        took, abs=0.01
    )  # SQLite's clock has milliseconds


def test_metrics_are_for_administrators(bob: Any, hello: Any) -> None:
    nobody = Client().get("/metrics")
    assert (nobody.status_code, nobody.headers["WWW-Authenticate"]) == (
        401,
        'Bearer realm="gantry"',
    )
    refused = api_as(bob).get("/metrics")
    assert refused.status_code == 403
    assert "administrator" in refused.json()["detail"]


def test_discovery_lists_what_serves_a_port_and_nothing_of_others(
    hello: Any, bob: Any, charlie: Any
) -> None:
    hello.environments.filter(name="prod").update(port=8181)
    found = api_as(bob, "read").get("/api/v1/http_sd/").json()
    assert [(one["targets"], one["labels"]["__meta_gantry_environment"]) for one in found] == [
        (["127.0.0.1:8181"], "prod")
    ]
    assert found[0]["labels"]["__meta_gantry_project"] == "hello"
    assert api_as(charlie, "read").get("/api/v1/http_sd/").json() == []


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("root@one.example.org", "one.example.org"),
        ("ssh://deploy@two.example.org:2222", "two.example.org"),
        ("three", "three"),
        ("deploy@[2001:db8::1]:22", "2001:db8::1"),
    ],
)
def test_a_host_is_discovered_under_the_name_of_its_address(address: str, name: str) -> None:
    from ciserver.dashboard.discovery import address_of
    from ciserver.releases.models import Host

    assert address_of(Host(name="x", kind="ssh", address=address)) == name


def lamps(client: Any, **headers: str) -> dict[str, dict[str, str]]:
    answer = client.get("/cctray.xml", **headers)
    assert answer.status_code == 200, answer.content
    root = ElementTree.fromstring(answer.content)
    return {one.attrib["name"]: one.attrib for one in root.findall("Project")}


def test_a_lamp_shows_the_last_verdict_of_the_default_branch_while_the_next_one_runs(
    hello: Any, bob: Any
) -> None:
    from ciserver.pipelines.models import State
    from tests.ciserver.pages.seeding import make_pipeline

    make_pipeline(hello, 901, state=State.FAILED)
    make_pipeline(hello, 902, state=State.PASSED, ref="refs/heads/other")
    make_pipeline(hello, 903, state=State.RUNNING)
    lamp = lamps(api_as(bob, "read"))["hello"]
    assert (lamp["activity"], lamp["lastBuildStatus"]) == ("Building", "Failure")
    assert lamp["lastBuildLabel"] == "901"
    assert lamp["webUrl"].endswith("/projects/hello/pipelines/903/")


def test_a_project_without_a_pipeline_has_a_lamp_too(project: Any, bob: Any) -> None:
    lamp = lamps(api_as(bob, "read"))["hello"]
    assert (lamp["activity"], lamp["lastBuildStatus"]) == ("Sleeping", "Unknown")
    assert "lastBuildLabel" not in lamp


def test_lamps_take_a_token_as_a_password_and_show_nothing_of_others(
    hello: Any, charlie: Any
) -> None:
    from ciserver.accounts.models import Scope, Token

    _, text = Token.make(user=charlie, name="lamp", scope=Scope.READ)
    basic = "Basic " + base64.b64encode(f"any:{text}".encode()).decode()
    assert lamps(Client(headers={"authorization": basic})) == {}
    refused = Client().get("/cctray.xml")
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (
        401,
        'Basic realm="gantry"',
    )
