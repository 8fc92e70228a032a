"""Each route of the API has its rate limit, its ETag and its idempotency key: none is left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from ciserver.accounts import limits
from ciserver.projects.models import Project
from tests.ciserver.access.audited import AUDITED, Done
from tests.ciserver.access.matrix import MATRIX, OTHERWISE, Ask, Who
from tests.ciserver.access.test_audit_of_writes import ask_of
from tests.ciserver.access.test_matrix import (
    ask_as,
    quietly,  # noqa: F401 - fixtures
    url_of,
    world,  # noqa: F401 - fixtures
)
from tests.ciserver.pipelines.test_starts import Hosted
from tests.conftest import api_as
from tests.webserver import redis

pytestmark = pytest.mark.django_db
OF_API = "/api/v1/"
ROUTES = [path for path in (*MATRIX, *OTHERWISE) if path.startswith(OF_API)]
WRITES = [(what, row) for what, rows in AUDITED.items() if f" {OF_API}" in what for row in rows[:1]]
# What has to be asked for.
ASKED = {
    "/api/v1/jobs/{pk}/search/": {"q": "hello"},
    "/api/v1/releases/{pk}/preview/": {"environment": "prod"},
}
NO_ETAG = {
    "/api/v1/commands/{pk}/stream/": "a stream",
    "/api/v1/jobs/{pk}/log/": "a file that grows; ?after= goes on where one stopped",
    "/api/v1/environments/{pk}/container/": "it holds a login that is made for who asks",
}


@pytest.fixture
def counted(settings: Any, tmp_path: Path) -> Iterator[None]:
    """A limit of one request, counted in a real Redis."""
    (tmp_path / "run").mkdir()
    socket = tmp_path / "run" / "redis.sock"
    settings.GANTRY = replace(
        settings.GANTRY, redis_url=f"unix://{socket}", api_rate=1, api_anonymous_rate=1
    )
    _anew()
    with redis(tmp_path):
        yield
    _anew()


def _anew() -> None:
    limits._client.cache_clear()
    limits._away_until[0] = 0.0


def test_each_route_counts_who_asks(counted: None, world: dict[str, Any]) -> None:  # noqa: F811
    api, free = api_as(world["people"][Who.ADMIN]), []
    for path in ROUTES:
        url = _url(path, world)
        for _ in range(3):  # the first of all is let in, and the first of a new minute
            if (answer := api.get(url)).status_code == 429:
                break
        else:
            free.append(path)
        assert "RateLimit-Remaining" in answer.headers, path
    assert free == []


def test_each_read_is_not_sent_again_when_nothing_changed(world: dict[str, Any]) -> None:  # noqa: F811
    api, sent = api_as(world["people"][Who.ADMIN]), {}
    for path, asks in MATRIX.items():
        reads = path in ROUTES and any(ask.method == "GET" for ask in asks)
        if not reads or path in NO_ETAG:
            continue
        url = url_of(path, world)
        first = api.get(url, ASKED.get(path))
        etag = first.headers.get("ETag", "none")
        again = api.get(url, ASKED.get(path), headers={"If-None-Match": etag})
        if (first.status_code, again.status_code) != (200, 304):
            sent[path] = f"{first.status_code} with {etag}, then {again.status_code}"
    assert sent == {}


def test_each_change_depends_on_what_was_read(world: dict[str, Any]) -> None:  # noqa: F811
    api, done = api_as(world["people"][Who.ADMIN]), []
    for path, asks in MATRIX.items():
        for ask in asks:
            if path in ROUTES and ask.method in {"PUT", "PATCH", "DELETE"}:
                headers = {"If-Match": '"of-another-time"'}
                call = getattr(api, ask.method.lower())
                answer = call(url_of(path, world), ask.body, format="json", headers=headers)
                if answer.status_code != 412:
                    done.append((ask.method, path, answer.status_code))
    assert done == []


def test_each_write_is_done_once_under_one_key(world: dict[str, Any], tmp_path: Path) -> None:  # noqa: F811
    twice = []
    with closing(Hosted(Project.objects.get(slug="hello"), tmp_path / "tree")) as made:
        made.push({"Dockerfile": "FROM scratch"})
        for what, row in WRITES:
            first, again = _twice(what, row, world)
            if (
                "Idempotent-Replayed" in first.headers
                or again.headers.get("Idempotent-Replayed") != "true"
                or (first.status_code, first.content) != (again.status_code, again.content)
            ):
                twice.append((what, first.status_code, again.status_code))
    assert twice == []


def _twice(what: str, row: Done, world: dict[str, Any]) -> tuple[Any, Any]:  # noqa: F811
    ask = ask_of(what, row)
    here = world | {"pk": dict(world["pk"])}
    with transaction.atomic():
        if row.ready:
            row.ready(here)
        user = here["people"][row.by or ask.least]
        client, url = api_as(user), url_of(what.split(" ")[1], here)
        answers = [_ask(client, ask, url, here) for _ in range(2)]
        transaction.set_rollback(True)
    return answers[0], answers[1]


def _ask(client: Any, ask: Ask, url: str, world: dict[str, Any]) -> Any:  # noqa: F811
    return ask_as(Who.ADMIN, ask, url, world, client=client, headers={"Idempotency-Key": "k-1"})


def _url(path: str, world: dict[str, Any]) -> str:  # noqa: F811
    if path in MATRIX:
        return url_of(path, world)
    return path.format(pk=1, **{key: value for key, value in world.items() if key != "pk"})
