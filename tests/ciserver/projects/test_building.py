"""How a project's pipelines are queued: by API and page, for maintainers."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from ciserver.accounts.models import AuditEntry
from tests.conftest import api_as

PATH = "/api/v1/projects/hello/"


def test_a_maintainer_changes_one_value_and_the_other_stays(api: Any, project: Any) -> None:
    assert api.patch(PATH, {"concurrency": 2}, format="json").json()["concurrency"] == 2
    answer = api.patch(PATH, {"cancel_superseded": True}, format="json").json()

    assert (answer["concurrency"], answer["cancel_superseded"]) == (2, True)
    assert [entry.detail for entry in AuditEntry.objects.filter(action="project.building")] == [
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
