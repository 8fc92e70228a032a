"""Projects over the API, and who may pull their images."""

from __future__ import annotations

import base64
from typing import Any

import jwt
import pytest
from django.test import Client

from ciserver.accounts.models import Scope, Token
from ciserver.accounts.registry_tokens import PULL_USER, pull_password
from ciserver.projects.models import Role
from tests.conftest import api_as


def test_whoever_makes_a_project_owns_it(api: Any, alice: Any) -> None:
    response = api.post("/api/v1/projects/", {"slug": "shop"}, format="json")
    assert response.status_code == 201
    assert response.json()["git_url"].endswith("/git/shop.git")
    project = alice.projects.get()
    assert project.allows(alice, Role.OWNER)


@pytest.mark.parametrize("slug", ["", "UPPER", "a/b", "-a", "a" * 64, "../x", "a b"])
def test_a_name_that_cannot_be_used_is_refused_in_words(api: Any, slug: str) -> None:
    response = api.post("/api/v1/projects/", {"slug": slug}, format="json")
    assert response.status_code == 400
    assert response.json()["code"] in {"project.name", "invalid"}


def test_a_name_in_use_is_refused(api: Any, project: Any) -> None:
    response = api.post("/api/v1/projects/", {"slug": "hello"}, format="json")
    assert response.status_code == 409
    assert "already" in response.json()["detail"]


def test_charlie_sees_nothing_of_a_project_he_has_no_part_in(project: Any, charlie: Any) -> None:
    client = api_as(charlie)
    assert client.get("/api/v1/projects/").json()["results"] == []
    assert client.get("/api/v1/projects/hello/").status_code == 404


def test_a_developer_may_not_renew_the_webhook_secret(project: Any, bob: Any, api: Any) -> None:
    path = "/api/v1/projects/hello/hook-secret/"
    assert api_as(bob).post(path).status_code == 403
    secret = api.post(path).json()["secret"]
    project.refresh_from_db()
    assert secret not in project.hook_secret_sealed
    assert project.hook_secret.reveal() == secret


def test_every_project_has_its_own_host_ids(project: Any, alice: Any) -> None:
    from ciserver.projects import services

    other = services.create(slug="other", owner=alice)
    assert abs(other.id_base - project.id_base) >= 65536


def granted(credentials: str, scope: str) -> Any:
    encoded = base64.b64encode(credentials.encode()).decode()
    response = Client().get(
        "/api/v1/registry/token",
        {"service": "gantry-registry", "scope": scope},
        headers={"Authorization": f"Basic {encoded}"},
    )
    if response.status_code != 200:
        return response.status_code
    claims = jwt.decode(response.json()["token"], options={"verify_signature": False})
    return claims["access"]


def test_a_member_may_pull_and_nobody_may_push(project: Any, bob: Any, charlie: Any) -> None:
    _, text = Token.make(user=bob, name="t", scope=Scope.WRITE)
    pull = [{"type": "repository", "name": "hello", "actions": ["pull"]}]
    assert granted(f"bob:{text}", "repository:hello:pull,push") == pull
    assert granted(f"bob:{text}", "repository:other:pull") == []
    _, text = Token.make(user=charlie, name="t", scope=Scope.WRITE)
    assert granted(f"charlie:{text}", "repository:hello:pull") == []


def test_a_deployments_password_pulls_its_one_repository_for_a_short_time(db: None) -> None:
    password = pull_password("hello")
    pull = [{"type": "repository", "name": "hello", "actions": ["pull"]}]
    assert granted(f"{PULL_USER}:{password}", "repository:hello:pull") == pull
    assert granted(f"{PULL_USER}:{password}", "repository:other:pull") == []
    late = pull_password("hello", lifetime=-1)
    assert granted(f"{PULL_USER}:{late}", "repository:hello:pull") == 401


def test_without_credentials_the_registry_gets_no_token(db: None) -> None:
    response = Client().get("/api/v1/registry/token", {"scope": "repository:hello:pull"})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic")
