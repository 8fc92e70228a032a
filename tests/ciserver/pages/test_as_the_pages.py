"""What a page shows or finds, the API does too."""

from __future__ import annotations

from typing import Any

import pytest

from ciserver.accounts.models import AuditEntry
from ciserver.pipelines.models import Event, Job, Pipeline
from ciserver.releases.models import Deployment, DeploymentState, Environment, Release, Running
from tests.ciserver.pages import seeding
from tests.conftest import api_as

API = "/api/v1/"


def slugs(user: Any, query: str) -> list[str]:
    rows = api_as(user, "read").get(f"{API}projects/{query}").json()["results"]
    return [row["slug"] for row in rows]


def test_projects_are_found_by_their_words(hello: Any, alice: Any, charlie: Any) -> None:
    seeding.make_project("shop", alice, description="Orders and invoices")
    assert slugs(alice, "?q=INVOICE") == ["shop"]
    assert slugs(alice, "?q=hel") == ["hello"]
    assert slugs(alice, "?q=zzz") == slugs(charlie, "?q=hel") == []


def test_a_project_names_its_badge(hello: Any, alice: Any, client: Any) -> None:
    address = api_as(alice, "read").get(f"{API}projects/hello/").json()["badge"]
    path = address[address.index("/projects/") :]
    assert client.get(path)["Content-Type"].startswith("image/svg+xml")


def test_the_audit_log_is_searched(hello: Any, alice: Any) -> None:
    AuditEntry.record(actor="bob", action="stop.begin", target="hello", reason="A bad disk")
    AuditEntry.record(actor="bob", action="stop.end", target="hello")
    client = api_as(alice, "read")
    found = client.get(f"{API}audit/?q=bad+DISK").json()["results"]
    assert [row["action"] for row in found] == ["stop.begin"]
    assert client.get(f"{API}audit/?actor=bob&q=stop").json()["results"][1:] != []
    assert client.get(f"{API}audit/?actor=alice&q=disk").json()["results"] == []


@pytest.mark.parametrize("show", ["unhealthy", "drift", "waiting", "moving"])
def test_environments_are_chosen_by_how_they_stand(hello: Any, alice: Any, show: str) -> None:
    def names() -> list[str]:
        rows = api_as(alice, "read").get(f"{API}environments/?show={show}").json()["results"]
        return [row["name"] for row in rows]

    assert names() == []
    prod = Environment.objects.get(name="prod")
    if show in {"waiting", "moving"}:
        state = DeploymentState.WAITING if show == "waiting" else DeploymentState.QUEUED
        release = Release.objects.get(number=5)
        for _ in range(2):
            Deployment.objects.create(
                environment=prod, release=release, kind="promotion", state=state
            )
    Running.objects.filter(environment=prod).update(
        healthy=show != "unhealthy", drift="Stopped." * (show == "drift")
    )
    assert names() == ["prod"]


def test_a_standing_that_is_none_is_refused(hello: Any, alice: Any) -> None:
    answer = api_as(alice, "read").get(f"{API}environments/?show=fine")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["show"])


def test_a_log_tells_its_first_error(hello: Any, alice: Any) -> None:
    def error_of(pipeline: int) -> list[Any]:
        job = Job.objects.get(pipeline__number=pipeline, name="unit")
        return list(api_as(alice, "read").get(f"{API}jobs/{job.pk}/first-error/").json())

    (line,) = error_of(6)
    assert "FAILED" in line["text"]
    assert line["number"] > 1


def test_the_slowest_tests_are_told_to_members(hello: Any, alice: Any, charlie: Any) -> None:
    url = f"{API}cases/slowest/?project=hello"
    rows = api_as(alice, "read").get(url).json()
    assert rows[0]["mean"] == max(row["mean"] for row in rows)
    assert set(rows[0]) == {"suite", "name", "mean", "worst", "runs"}
    assert api_as(charlie, "read").get(url).status_code == 404
    assert api_as(alice, "read").get(f"{API}cases/slowest/").status_code == 404


def test_pipelines_are_chosen_by_what_began_them(hello: Any, alice: Any) -> None:
    Pipeline.objects.filter(number=4).update(event=Event.MANUAL)
    rows = api_as(alice, "read").get(f"{API}pipelines/?event=manual").json()["results"]
    assert [row["number"] for row in rows] == [4]
