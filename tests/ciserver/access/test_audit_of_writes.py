"""Each write of the service is done once here, and the audit log then tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from ciserver.accounts.models import AuditEntry
from ciserver.projects.models import Project
from tests.ciserver.access.audited import AUDITED, NOT_AUDITED, Done
from tests.ciserver.access.matrix import MATRIX, OTHERWISE, Ask, Who
from tests.ciserver.access.routes import METHODS, routes
from tests.ciserver.access.test_matrix import (
    _renamed,
    ask_as,
    quietly,  # noqa: F401 - fixtures
    url_of,
    world,  # noqa: F401 - fixtures
)
from tests.ciserver.pipelines.test_starts import Hosted
from tests.conftest import api_as

pytestmark = pytest.mark.django_db
WRITING = set(METHODS) - {"GET"}


@pytest.fixture
def pushed(world: dict[str, Any], tmp_path: Path) -> Iterator[dict[str, Any]]:  # noqa: F811
    """The world of the permission matrix, with a commit in its project."""
    with closing(Hosted(Project.objects.get(slug="hello"), tmp_path / "tree")) as made:
        made.push({"Dockerfile": "FROM scratch"})
        yield world


def test_each_write_of_the_service_has_a_row(alice: Any) -> None:
    in_matrix = {
        f"{ask.method} {path}" for path, asks in MATRIX.items() for ask in asks
    }  # test_matrix.py sees to it that these are all the methods of these routes
    writes = {what for what in in_matrix if not what.startswith("GET ")} | set(_others(alice))
    rows = {*AUDITED, *NOT_AUDITED}
    assert sorted(writes - rows) == [], "Add a row to tests/ciserver/access/audited.py."
    assert sorted(rows - writes) == [], "These rows are of no write."
    assert set(AUDITED) & set(NOT_AUDITED) == set()


def test_every_write_is_done_and_written_down(pushed: dict[str, Any]) -> None:
    wrong = {}
    for what, rows in AUDITED.items():
        for row in rows:
            status, actions = _try(what, row, pushed)
            if status >= 400 or actions != [row.action]:
                wrong[f"{what} {row.body or ''}"] = f"{status}: {actions}, not {row.action}"
    assert not wrong, "\n".join(f"{what}: {told}" for what, told in wrong.items())


def _others(user: Any) -> Iterator[str]:
    """The writes among the routes that the matrix leaves to other tests."""
    user.is_superuser = True
    user.save()
    api, page = api_as(user), Client(raise_request_exception=False)
    page.force_login(user)
    for route in routes():
        path = _renamed(route.path)
        if path not in OTHERWISE:
            continue
        client: Any = api if route.of_api else page
        for method in WRITING if route.of_api else {"POST"}:  # a form knows no other
            if _answers(client, method, path):
                yield f"{method} {path}"


def _answers(client: Any, method: str, path: str) -> bool:
    names = {"forge": "github", "slug": "x", "name": "x", "uidb64": "x", "token": "x-x", "key": "x"}
    with transaction.atomic():
        answer = client.generic(method, path.format(pk=1, **names))
        transaction.set_rollback(True)
    return bool(answer.status_code != 405)


def ask_of(what: str, row: Done) -> Ask:
    """What to ask for: as the matrix says, but for what ``row`` says."""
    method, path = what.split(" ")
    asks = (ask for ask in MATRIX.get(path, ()) if ask.method == method)
    ask = next(asks, Ask(method, Who.ADMIN))
    return ask if row.body is None else ask._replace(body=row.body)


def _try(what: str, row: Done, world: dict[str, Any]) -> tuple[int, list[str]]:  # noqa: F811
    """How it was answered, and what the log has of it; whatever it did is undone."""
    ask, path = ask_of(what, row), what.split(" ")[1]
    here = world | {"pk": dict(world["pk"])}
    with transaction.atomic():
        if row.ready:
            row.ready(here)
        newest = AuditEntry.objects.order_by("id").last()
        answer = ask_as(row.by or ask.least, ask, url_of(path, here), here)
        entries = AuditEntry.objects.filter(pk__gt=newest.pk if newest else 0)
        actions = list(entries.order_by("id").values_list("action", flat=True))
        transaction.set_rollback(True)
    return answer.status_code, actions
