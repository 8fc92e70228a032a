"""What a project is said to be and how its pipelines are queued: for maintainers."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from ciserver.accounts.models import AuditEntry
from ciserver.notifications import outgoing
from tests.conftest import api_as

PATH = "/api/v1/projects/hello/"


def test_a_maintainer_changes_one_value_and_the_other_stays(api: Any, project: Any) -> None:
    assert api.patch(PATH, {"concurrency": 2}, format="json").json()["concurrency"] == 2
    answer = api.patch(PATH, {"cancel_superseded": True}, format="json").json()

    assert (answer["concurrency"], answer["cancel_superseded"]) == (2, True)
    assert [entry.detail for entry in AuditEntry.objects.filter(action="project.change")] == [
        {"cancel_superseded": [False, True]},
        {"concurrency": [0, 2]},
    ]


@pytest.mark.parametrize("wrong", [-1, 1001, "many"])
def test_a_number_that_cannot_be_is_refused(api: Any, project: Any, wrong: Any) -> None:
    assert api.patch(PATH, {"concurrency": wrong}, format="json").status_code == 400


def test_a_developer_may_not(project: Any, bob: Any) -> None:
    assert api_as(bob).patch(PATH, {"concurrency": 1}, format="json").status_code == 403
    project.refresh_from_db()
    assert project.concurrency == 0


def test_the_page_changes_both(project: Any, alice: Any) -> None:
    client = Client()
    client.force_login(alice)
    page = "/projects/hello/building/"

    assert client.post(page, {"concurrency": "3", "cancel_superseded": "on"}).status_code == 302
    project.refresh_from_db()
    assert (project.concurrency, project.cancel_superseded) == (3, True)
    assert client.post(page, {"concurrency": "-1"}).status_code == 400


def test_a_developer_reads_on_the_page_what_holds(project: Any, bob: Any) -> None:
    project.concurrency = 1
    project.save()
    client = Client()
    client.force_login(bob)

    text = client.get("/projects/hello/building/").content.decode()

    assert "At most 1 pipeline at once" in text
    assert "A maintainer can change this." in text
    assert "<form method" not in text.split("<h1>")[1]


def test_the_description_is_changed_by_api_and_page(api: Any, project: Any, alice: Any) -> None:
    assert (
        api.patch(PATH, {"description": "Greets"}, format="json").json()["description"] == "Greets"
    )
    client = Client()
    client.force_login(alice)
    page = "/projects/hello/building/"
    assert 'value="Greets"' in client.get(page).content.decode()
    client.post(page, {"concurrency": "0", "description": "Greets whoever asks"})
    project.refresh_from_db()
    assert project.description == "Greets whoever asks"
    assert api.patch(PATH, {"description": "x" * 201}, format="json").status_code == 400
    assert api.patch(PATH, {"description": ""}, format="json").status_code == 200


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (PATH, "clone_url"),
        (f"{PATH}repository/", "protect_branches"),
        (f"{PATH}webhooks/{{webhook}}/", "created_at"),
        ("/api/v1/environments/{environment}/", "approvalz"),
        ("/api/v1/users/bob/", "admin"),
    ],
)
def test_a_field_that_is_none_is_refused_by_its_name(
    project: Any, alice: Any, bob: Any, path: str, field: str
) -> None:
    endpoint, _ = outgoing.add(project=project, user=alice, url="https://1.1.1.1/")
    environment = project.environments.create(name="qa", position=1)
    alice.is_superuser = True
    alice.save()
    url = path.format(webhook=endpoint.pk, environment=environment.pk)
    answer = api_as(alice).patch(url, {field: True}, format="json")
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert list(answer.json()["errors"]) == [field]
