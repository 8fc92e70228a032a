"""Each list of the API goes on by cursor, gap-free, and each filter that it names is one."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator

from ciserver.pipelines.models import Schedule
from ciserver.projects.models import Project
from tests.ciserver.access.matrix import Who
from tests.ciserver.access.test_matrix import quietly, world  # noqa: F401 - fixtures
from tests.ciserver.pages import seeding
from tests.conftest import api_as

pytestmark = pytest.mark.django_db
# What nothing is called. A filter that asks what is written in a log or ledger finds nothing, too.
NOTHING = {"string": "nothing-is-called-this", "integer": 987654, "boolean": "true"}
# Whether a pull request is open, or a test flaky, is no name: both answers may hold rows.
SWITCHES = {"open", "flaky", "standing", "archived"}
# What one project, job or person has few of, and what a screen shows at most.
WHOLE = {
    "/api/v1/cases/slowest/",
    "/api/v1/environments/{id}/secrets/",
    "/api/v1/http_sd/",
    "/api/v1/jobs/{id}/first-error/",
    "/api/v1/jobs/{id}/lines/",
    "/api/v1/jobs/{id}/search/",
    "/api/v1/me/sessions/",
    "/api/v1/pipelines/inputs/",
    "/api/v1/projects/{slug}/secrets/",
    "/api/v1/search/",
}
UNFILTERED = {"/api/v1/projects/{slug}/webhooks/", "/api/v1/tokens/"}


def _lists() -> list[tuple[str, list[dict[str, Any]]]]:
    """(path, its filters) of what answers with pages."""
    found = []
    for path, operations in (
        SchemaGenerator().get_schema(request=None, public=True)["paths"].items()
    ):
        parameters = [one for one in operations.get("get", {}).get("parameters", []) if "in" in one]
        names = {one["name"] for one in parameters}
        if "cursor" in names:
            asked = [one for one in parameters if one["in"] == "query"]
            found.append(
                (path, [one for one in asked if one["name"] not in {"cursor", "page_size"}])
            )
    return found


def _address(path: str, world: dict[str, Any]) -> str:  # noqa: F811 - the fixture's value
    return path.format(slug=world["slug"], id=world["webhook"])


def test_no_list_is_answered_whole_that_may_get_long() -> None:
    document = SchemaGenerator().get_schema(request=None, public=True)
    whole = {path for path, asks in document["paths"].items() if _is_array(asks.get("get"))}
    assert whole == WHOLE


def test_each_list_has_filters() -> None:
    assert {path for path, filters in _lists() if not filters} == UNFILTERED


def _is_array(operation: Any) -> bool:
    answer = (operation or {}).get("responses", {}).get("200", {})
    kinds = [said["schema"].get("type") for said in answer.get("content", {}).values()]
    return "array" in kinds


def test_each_list_goes_on_by_cursor_without_a_gap(world: dict[str, Any]) -> None:  # noqa: F811
    api = api_as(world["people"][Who.ADMIN])
    for path, _ in _lists():
        address = _address(path, world)
        whole = api.get(address, {"page_size": 200}).json()["results"]
        found, following = [], f"{address}?page_size=1"
        while following:
            page = api.get(following).json()
            assert len(page["results"]) <= 1, path
            found += page["results"]
            following = page["next"]
        assert found == whole, path


def test_each_filter_that_is_named_leaves_out_what_does_not_fit(
    world: dict[str, Any],  # noqa: F811 - the fixture
) -> None:
    api = api_as(world["people"][Who.ADMIN])
    tried = 0
    for path, filters in _lists():
        address = _address(path, world)
        for one in filters:
            if one["name"] in SWITCHES:
                continue
            tried += 1
            answer = api.get(address, {one["name"]: NOTHING[one["schema"]["type"]]})
            said = answer.json()
            assert answer.status_code == 400 or said["results"] == [], (path, one["name"])
    assert tried > 20


def test_a_row_that_comes_meanwhile_moves_nothing(project: Any, alice: Any) -> None:
    for number in range(1, 6):
        seeding.make_pipeline(project, number)
    api, found = api_as(alice), []
    following = "/api/v1/pipelines/?page_size=2"
    while following:
        page = api.get(following).json()
        found += [row["number"] for row in page["results"]]
        following = page["next"]
        seeding.make_pipeline(project, 10 + len(found))
    assert found == [5, 4, 3, 2, 1]


def test_each_list_has_rows_in_the_world_it_is_tried_in(world: dict[str, Any]) -> None:  # noqa: F811
    """Or the tests above would say little."""
    Schedule.objects.create(
        project=Project.objects.get(slug=world["slug"]), cron="0 3 * * *", next_at=timezone.now()
    )
    api = api_as(world["people"][Who.ADMIN])
    empty = [path for path, _ in _lists() if not api.get(_address(path, world)).json()["results"]]
    assert empty == []
