"""Releases over the API: who sees what, what is accepted, and how a refusal reads."""

from __future__ import annotations

from typing import Any

import pytest

from ciserver.releases import services
from tests.conftest import api_as

pytestmark = pytest.mark.django_db
PROBLEM = "application/problem+json"


@pytest.fixture
def release(passed: Any) -> Any:
    return services.make_release(passed())


def promote(client: Any, release: Any, environment: str, verb: str = "promote") -> Any:
    return client.post(
        f"/api/v1/releases/{release.pk}/{verb}/", {"environment": environment}, format="json"
    )


def test_a_promotion_is_accepted_and_says_where_to_follow_it(
    api: Any, release: Any, succeeded: Any
) -> None:
    succeeded(release, release.project.environments.get(name="qa"))
    answer = promote(api, release, "prod")
    assert answer.status_code == 202
    body = answer.json()
    assert (body["state"], body["environment"], body["release_name"]) == ("queued", "prod", "v1")
    assert body["url"] == answer.headers["Location"]
    followed = api.get(body["url"])
    assert followed.json()["digest"] == release.digest
    assert followed.json()["requested_by"] == "alice"


def test_a_refusal_is_a_problem_document_with_the_next_step(api: Any, release: Any) -> None:
    answer = promote(api, release, "prod")
    assert (answer.status_code, answer.headers["Content-Type"]) == (409, PROBLEM)
    body = answer.json()
    assert body["code"] == "release.order"
    assert body["detail"] == "v1 is still being deployed to qa."
    assert body["hint"]


def test_an_environment_that_is_not_there_is_named_beside_those_that_are(
    api: Any, release: Any
) -> None:
    answer = promote(api, release, "staging")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, PROBLEM)
    assert answer.json()["hint"] == "It has: qa, prod."
    assert api.post(f"/api/v1/releases/{release.pk}/promote/", {}, format="json").status_code == 400


def test_a_developer_may_look_but_not_promote(release: Any, bob: Any) -> None:
    client = api_as(bob)
    assert client.get(f"/api/v1/releases/{release.pk}/").json()["name"] == "v1"
    answer = promote(client, release, "qa")
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, PROBLEM)
    assert "maintainer" in answer.json()["detail"]


def test_a_token_that_may_only_read_cannot_promote(release: Any, alice: Any) -> None:
    assert promote(api_as(alice, "read"), release, "qa").status_code == 403


def test_an_outsider_sees_nothing_of_it(release: Any, charlie: Any) -> None:
    client = api_as(charlie)
    deployment = release.deployments.get()
    for path in (f"releases/{release.pk}/", f"deployments/{deployment.pk}/"):
        assert client.get(f"/api/v1/{path}").status_code == 404
    for path in ("releases/", "deployments/", "environments/", "hosts/"):
        assert client.get(f"/api/v1/{path}").json()["results"] == []
    assert promote(client, release, "qa").status_code == 404
    assert promote(client, release, "qa", "roll-back").status_code == 404


def test_lists_are_narrowed_by_project_and_state(api: Any, release: Any) -> None:
    def found(path: str) -> int:
        return len(api.get(f"/api/v1/{path}").json()["results"])

    assert found("releases/?project=hello") == 1
    assert found("releases/?project=other") == 0
    assert found("deployments/?project=hello&environment=qa&state=queued") == 1
    assert found(f"deployments/?release={release.pk}&state=failed") == 0
    assert found("environments/?project=hello") == 2
    assert api.get("/api/v1/deployments/?release=v1").status_code == 400


def test_a_projects_owner_makes_environments_on_this_machine(api: Any, hello: Any) -> None:
    answer = api.post(
        "/api/v1/environments/", {"project": "hello", "name": "canary"}, format="json"
    )
    assert (answer.status_code, answer.json()["hosts"][0]["name"]) == (201, "local")
    wanted = {"project": "hello", "name": "edge", "hosts": ["elsewhere"]}
    answer = api.post("/api/v1/environments/", wanted, format="json")
    assert (answer.status_code, answer.json()["code"]) == (404, "host.unknown")


def test_an_environment_says_where_it_is_served_and_what_runs_there(
    api: Any, hello: Any, alice: Any
) -> None:
    services.attach_host(environment=hello.environments.get(name="qa"), user=alice)
    body = api.get("/api/v1/environments/?project=hello&name=qa").json()["results"][0]
    assert body["address"] == f"http://127.0.0.1:{body['port']}"
    assert body["hosts"][0]["name"] == "local"
    assert body["running"] == []


def test_there_is_a_way_back_over_the_api(api: Any, release: Any, succeeded: Any) -> None:
    assert promote(api, release, "qa", "roll-back").json()["code"] == "release.never-ran"
    succeeded(release, release.project.environments.get(name="qa"))
    answer = promote(api, release, "qa", "roll-back")
    assert answer.status_code == 202
    assert answer.json()["kind"] == "rollback"
