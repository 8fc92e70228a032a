"""One cast for all tests: alice owns, bob is on the team, charlie must be refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import database


@pytest.fixture(scope="session", autouse=True)
def database_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Processes of xdist have folders of their own below that of the run."""
    base = tmp_path_factory.getbasetemp()
    database.shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def django_db_keepdb(database_of_the_run: None) -> bool:
    """pytest-django's: whether the database is there already. That of SQLite is a copy of the one
    that ``manage.py migrate`` made for all processes of the run."""
    if "GANTRY_DATABASE_URL" in os.environ:
        return False
    database.migrate(dict(os.environ))
    made = Path(os.environ["GANTRY_HOME"]) / "db" / "gantry.sqlite3"
    made.rename(os.environ["GANTRY_TEST_DATABASE"])
    return True


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """pytest-django's. After each test with real transactions Django would write all permissions
    and content types anew, which nothing here reads: 25 commits, twenty times what emptying the
    tables takes."""
    from django.contrib.contenttypes.management import create_contenttypes
    from django.db.models.signals import post_migrate

    assert post_migrate.disconnect(create_contenttypes)
    assert post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")


@pytest.fixture(autouse=True)
def quick_settings(settings: Any) -> None:
    """The real hasher takes a third of a second for each user, on purpose; and the names of
    static files are made from a manifest that only ``collectstatic`` writes."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    }


@pytest.fixture
def alice(db: None) -> Any:
    return _user("alice")


@pytest.fixture
def bob(db: None) -> Any:
    return _user("bob")


@pytest.fixture
def charlie(db: None) -> Any:
    return _user("charlie")


@pytest.fixture
def project(alice: Any, bob: Any) -> Any:
    """Project ``hello``, hosted here: alice owns it, bob develops it, charlie has no part in it."""
    from ciserver.projects.models import Membership, Project, Role
    from ciserver.repositories.git import git_dir

    hello = Project.objects.create(slug="hello")
    # Rows of an earlier test may have had this number, and their repository be left.
    shutil.rmtree(git_dir(hello), ignore_errors=True)
    Membership.objects.create(project=hello, user=alice, role=Role.OWNER)
    Membership.objects.create(project=hello, user=bob, role=Role.DEVELOPER)
    return hello


@pytest.fixture
def ring(settings: Any) -> Iterator[Path]:
    """The key ring, which is as it was afterwards."""
    from ciserver.lib import crypto

    path: Path = settings.GANTRY.keys / "keyring"
    before = path.read_text()
    yield path
    path.write_text(before)
    crypto._keyring.cache_clear()


@pytest.fixture
def api(alice: Any) -> Any:
    """The API as alice uses it, by a token that may write."""
    return api_as(alice)


def api_as(user: Any, scope: str = "write") -> Any:
    from rest_framework.test import APIClient

    from ciserver.accounts.models import Scope, Token

    client = APIClient()
    _, text = Token.make(user=user, name="test", scope=Scope(scope))
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    return client


def _user(name: str) -> Any:
    from ciserver.accounts.models import User

    return User.objects.create_user(name, f"{name}@example.org", f"{name}-password-1")
