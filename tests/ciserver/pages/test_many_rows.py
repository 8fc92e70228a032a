"""Pages ask the database as often for many rows as for few."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ciserver.accounts.models import AuditEntry, Team, User
from ciserver.dashboard.matrix import PAGE_SIZE
from ciserver.dashboard.models import ImageRecord, LayerRecord
from ciserver.pipelines.models import Pipeline
from ciserver.projects.models import Project
from ciserver.releases.models import Deployment, Environment, Host, Release, Running

AT = "/projects/seed-0000"
PATHS = (
    "/",
    "/?q=service",
    "/hosts/",
    "/hosts/seed-host-0/",
    "/audit/",
    "/users/",
    "/teams/",
    "/metrics",
    "/cctray.xml",
    f"{AT}/",
    f"{AT}/pipelines/1/",
    f"{AT}/tests/",
    f"{AT}/environments/qa/",
    f"{AT}/environments/qa/deployments/",
    f"{AT}/pipelines/",
    f"{AT}/pipelines/?branch=main&state=passed",
    f"{AT}/releases/",
    f"{AT}/deliveries/",
    f"{AT}/members/",
    f"{AT}/audit/",
    "/registry/",
    f"{AT}/images/",
    "/search/?q=seed-0000",
    *(
        f"/api/v1/{name}/"
        for name in (
            "projects",
            "pipelines",
            "releases",
            "environments",
            "deployments",
            "deliveries",
            "cases",
            "audit",
            "users",
            "teams",
            "http_sd",
        )
    ),
)
NEWEST = f"{AT}/releases/{{number}}/"  # in the same places, however many there were before it


def _counts() -> dict[str, int]:
    """Page -> statements, as an administrator, who sees every row."""
    client = Client()
    client.force_login(User.objects.get(username="root"))
    found = {}
    newest = Release.objects.filter(project__slug="seed-0000").order_by("-number")[0]
    for path in (*PATHS, NEWEST):
        url = path.format(number=newest.number)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(url).status_code == 200, path
        found[path] = len(queries)
    return found


@pytest.fixture
def root(db: None) -> Any:
    return User.objects.create_superuser("root")


def test_no_page_asks_more_often_for_many_rows_than_for_few(root: Any) -> None:
    call_command("seed", projects=2, pipelines=4)
    _counts()  # what is asked once in a process
    few = _counts()
    _forget()
    call_command("seed", projects=5, pipelines=60)
    many = _counts()
    assert {path: (few[path], many[path]) for path in few if many[path] > few[path]} == {}
    assert max(many.values()) <= 30


def test_the_matrix_loads_in_150_kb_however_many_projects_there_are(root: Any) -> None:
    call_command("seed", projects=30, pipelines=90)
    client = Client()
    client.force_login(root)
    page = client.get("/").content
    assert page.count(b'class="name"') == PAGE_SIZE
    static = settings.BASE_DIR / "ciserver" / "static" / "gantry"
    files = [static / name for name in ("gantry.css", "gantry.js", "icon.svg")]
    assert len(page) + sum(file.stat().st_size for file in files) <= 150_000


def _forget() -> None:
    for model in (Running, Deployment, Release, Pipeline, ImageRecord, LayerRecord):
        model.objects.all().delete()
    for model in (Environment, Project, Host):
        model.objects.all().delete()
    User.objects.filter(username__startswith="seed-").delete()
    Team.objects.all().delete()


def test_a_seeded_database_is_whole(root: Any) -> None:
    call_command("seed", projects=3, pipelines=30)
    assert (Project.objects.count(), Pipeline.objects.count()) == (3, 30)
    assert AuditEntry.broken_at() is None
    assert Release.objects.filter(number=1).count() == 3
    with pytest.raises(CommandError, match="seeded already"):
        call_command("seed", projects=1, pipelines=1)


def test_seeding_leaves_a_database_with_real_projects_alone(project: Any) -> None:
    with pytest.raises(CommandError, match="has real projects"):
        call_command("seed", projects=1, pipelines=1)
    assert Project.objects.count() == 1
