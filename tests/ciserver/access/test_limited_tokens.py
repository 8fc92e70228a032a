"""A token that is limited to one project opens that one, whoever made it, and nothing else."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from ciserver.accounts.authentication import OF_PROJECTS
from ciserver.accounts.models import AuditEntry, Scope, Token
from ciserver.projects.models import Project
from ciserver.repositories.http.access import Denied, admit
from tests.ciserver.access.matrix import MATRIX, Ask, Who
from tests.ciserver.access.test_matrix import (
    ask_as,
    quietly,  # noqa: F401 - fixtures
    url_of,
    world,  # noqa: F401 - fixtures
)
from tests.conftest import api_as

pytestmark = pytest.mark.django_db
OF_API = [
    (path, ask) for path, asks in MATRIX.items() for ask in asks if path.startswith("/api/v1/")
]


def limited(user: Any, slug: str) -> Any:
    """The API by a token of ``user`` that opens the project ``slug`` alone."""
    from rest_framework.test import APIClient

    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text_of(user, slug)}")
    return client


def text_of(user: Any, slug: str) -> str:
    only = Project.objects.get(slug=slug)
    return Token.make(user=user, name="limited", scope=Scope.WRITE, project=only)[1]


def test_of_another_project_it_is_told_nothing_even_an_administrators(
    world: dict[str, Any],  # noqa: F811 - the fixture
) -> None:
    api, open_, told = limited(world["people"][Who.ADMIN], "other"), [], []
    for path, ask in OF_API:
        answer = _asked(api, ask, url_of(path, world), world)
        if ask.least > Who.STRANGER and answer.status_code not in {401, 403, 404}:
            open_.append((ask.method, path, answer.status_code))
        if "hello" in answer.content.decode().replace("/projects/hello", ""):
            told.append((ask.method, path))
    assert open_ == []
    assert [one for one in told if one[0] == "GET"] == []


def test_in_its_own_it_may_what_its_owner_may(world: dict[str, Any]) -> None:  # noqa: F811
    api = limited(world["people"][Who.OWNER], "hello")
    shut = []
    for path, ask in OF_API:
        if not Who.VIEWER <= ask.least <= Who.OWNER or path.split("/")[3] not in OF_PROJECTS:
            continue
        answer = _asked(api, ask, url_of(path, world), world)
        if answer.status_code in {401, 403, 404}:
            shut.append((ask.method, path, answer.status_code))
    assert shut == []


def test_it_is_nobody_beyond_its_project(world: dict[str, Any]) -> None:  # noqa: F811
    root = world["people"][Who.ADMIN]
    api = limited(root, "hello")
    for path in ("tokens/", "users/", "teams/", "me/sessions/"):
        assert api.get(f"/api/v1/{path}").status_code == 403, path
    assert api.post("/api/v1/tokens/", {"name": "wider"}, format="json").status_code == 403
    assert api.post("/api/v1/projects/", {"slug": "new"}, format="json").status_code == 403
    assert api.post("/api/v1/stops/", {"reason": "x"}, format="json").status_code == 403
    assert api.get("/metrics").status_code == 403
    assert api.get("/api/v1/me/").json()["is_superuser"] is False
    assert [row["slug"] for row in api.get("/api/v1/projects/").json()["results"]] == ["hello"]
    root.refresh_from_db()
    assert root.is_superuser
    found = Token.objects.find(text_of(root, "hello"))
    assert found is not None
    with pytest.raises(TypeError, match="never saved"):
        found.user.save()


def test_git_and_the_registry_keep_to_it(world: dict[str, Any]) -> None:  # noqa: F811
    text = text_of(world["people"][Who.ADMIN], "other")
    told = "Basic " + b64encode(f"any:{text}".encode()).decode()
    with pytest.raises(Denied, match="no project 'hello'"):
        admit("hello", "git-upload-pack", told)
    asked = "/api/v1/registry/token?service=gantry-registry&scope=repository:{}:pull"
    granted = {
        slug: Client().get(asked.format(slug), headers={"Authorization": told}).json()["token"]
        for slug in ("hello", "other")
    }
    assert len(granted["hello"]) < len(granted["other"]), "nothing is granted there"


def test_it_is_made_shown_and_ends_with_its_project(project: Any, alice: Any, client: Any) -> None:
    api = api_as(alice)
    made = api.post("/api/v1/tokens/", {"name": "ci", "project": "hello"}, format="json")
    assert (made.status_code, made.json()["project"]) == (201, "hello")
    assert AuditEntry.objects.get(action="token.make").detail["project"] == "hello"
    none = api.post("/api/v1/tokens/", {"name": "ci", "project": "nothing"}, format="json")
    assert (none.status_code, none.json()["code"]) == (400, "token.project")
    client.force_login(alice)
    form = {"name": "page", "scope": "read", "days": 30, "project": "hello"}
    assert client.post("/tokens/", form).status_code == 200
    page = client.get("/tokens/").content.decode()
    assert page.count("only hello") == 2
    wrong = client.post("/tokens/", form | {"project": "nothing"})
    assert (wrong.status_code, "no project" in wrong.content.decode()) == (400, True)
    project.delete()
    assert not Token.objects.filter(name__in=["ci", "page"]).exists()


def _asked(api: Any, ask: Ask, url: str, world: dict[str, Any]) -> Any:  # noqa: F811
    with transaction.atomic():
        answer = ask_as(Who.ADMIN, ask, url, world, client=api)
        transaction.set_rollback(True)
    return answer
