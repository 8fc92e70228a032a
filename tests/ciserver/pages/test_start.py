"""Starting a pipeline by the page, the API and the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ciserver.pipelines.models import Pipeline
from ciserver.projects.models import Membership, Project, Role
from tests.ciserver.pipelines.test_starts import YAML, Hosted
from tests.conftest import api_as

URL = "/projects/hello/start/"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hosted(project: Any, tmp_path: Path) -> Iterator[Hosted]:
    with closing(Hosted(project, tmp_path / "tree")) as made:
        made.push({"gantry.yml": YAML})
        made.push({"gantry.yml": "inputs: {only: {required: true}}"}, "other")
        yield made


def test_the_page_has_a_field_for_each_input(hosted: Hosted, bob: Any, client: Any) -> None:
    client.force_login(bob)
    html = client.get(URL).content.decode()
    assert 'name="input-level"' in html
    assert "How thorough" in html
    assert '<option value="low" selected>low</option>' in html
    assert 'name="input-only"' in client.get(f"{URL}?ref=other").content.decode()
    answer = client.get(f"{URL}?ref=nowhere")
    assert answer.status_code == 400
    assert "hello has no branch or tag" in answer.content.decode()


def test_the_form_starts_it(hosted: Hosted, bob: Any, client: Any) -> None:
    client.force_login(bob)
    data = {"ref": "refs/heads/main", "input-level": "high", "input-count": "2"}
    answer = client.post(URL, data)
    made = Pipeline.objects.get()
    assert answer["Location"] == made.get_absolute_url()
    assert made.inputs == {"level": "high", "count": "2", "dry": "false"}
    html = client.get(made.get_absolute_url()).content.decode()
    assert "started by bob" in html
    assert "level=high" in html


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"ref": "main", "input-count": "x"}, "Expected a number."),
        ({"ref": "main", "input-level": "x"}, "Select a valid choice"),
        ({"ref": "other"}, "This field is required."),
    ],
)
def test_a_wrong_value_is_told_beside_its_field(
    hosted: Hosted, bob: Any, client: Any, data: dict[str, str], words: str
) -> None:
    client.force_login(bob)
    answer = client.post(URL, data)
    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert not Pipeline.objects.exists()


def test_a_viewer_looks_and_starts_nothing(hosted: Hosted, charlie: Any, client: Any) -> None:
    Membership.objects.create(
        project=Project.objects.get(slug="hello"), user=charlie, role=Role.VIEWER
    )
    client.force_login(charlie)
    assert "A developer can start it." in client.get(URL).content.decode()
    assert client.post(URL, {"ref": "main"}).status_code == 403
    answer = api_as(charlie).post("/api/v1/pipelines/", {"project": "hello"}, format="json")
    assert answer.status_code == 403
    assert not Pipeline.objects.exists()


def test_a_protected_ref_says_who_may_start_it(hosted: Hosted, bob: Any, client: Any) -> None:
    hosted.project.push_role = Role.OWNER
    hosted.project.save()
    client.force_login(bob)
    assert "An owner can start it." in client.get(URL).content.decode()
    assert client.post(URL, {"ref": "main"}).status_code == 403
    assert 'type="submit">Start<' in client.get(f"{URL}?ref=other").content.decode()


def test_the_api_tells_the_inputs_and_starts(hosted: Hosted, bob: Any, charlie: Any) -> None:
    api = api_as(bob)
    rows = api.get("/api/v1/pipelines/inputs/", {"project": "hello", "ref": "main"}).json()
    assert [row["name"] for row in rows] == ["level", "count", "dry", "note"]
    assert rows[0]["options"] == ["low", "high"]
    body = {"project": "hello", "ref": "main", "inputs": {"level": "high"}}
    answer = api.post("/api/v1/pipelines/", body, format="json")
    assert answer.status_code == 201
    assert (answer.json()["event"], answer.json()["started_by"]) == ("api", "bob")
    (row,) = api.get("/api/v1/schedules/", {"project": "hello"}).json()["results"]
    assert row["cron"] == "0 3 * * *"
    typed = body | {"inputs": {"dry": True, "count": 2.5}}
    answer = api.post("/api/v1/pipelines/", typed, format="json")
    assert answer.json()["inputs"] | {"dry": "true", "count": "2.5"} == answer.json()["inputs"]
    for wrong in ({"dry": 7}, {"count": True}, {"level": ["low"]}, {"level": None}):
        refused = api.post("/api/v1/pipelines/", body | {"inputs": wrong}, format="json")
        assert refused.status_code == 400, wrong
    bad = api.post("/api/v1/pipelines/", body | {"inputs": {"level": "x"}}, format="json")
    assert bad.status_code == 400
    assert "expected one of low, high" in bad.json()["detail"]
    stranger = api_as(charlie)
    assert stranger.post("/api/v1/pipelines/", body, format="json").status_code == 404
    assert stranger.get("/api/v1/pipelines/inputs/", {"project": "hello"}).status_code == 404
    assert stranger.get("/api/v1/schedules/").json()["results"] == []
    reader = api_as(bob, "read")
    assert reader.post("/api/v1/pipelines/", body, format="json").status_code == 403


def test_one_that_waits_for_its_group_says_for_whom(hosted: Hosted, bob: Any, client: Any) -> None:
    commit = hosted.push({"gantry.yml": "concurrency: one"})
    first, second = hosted.queue(commit), hosted.queue(commit)
    client.force_login(bob)
    html = client.get(second.get_absolute_url()).content.decode()
    assert f'<a href="{first.get_absolute_url()}">#{first.number}</a> comes first' in html
