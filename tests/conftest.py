"""One cast for all tests: alice owns, bob is on the team, charlie must be refused."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Settings are read when Django is set up, so the home of this test run comes first.
_HOME = Path(tempfile.mkdtemp(prefix="gantry-test-"))
_HOME.chmod(0o711)
os.environ["GANTRY_HOME"] = str(_HOME)
for _name in [name for name in os.environ if name.startswith("GANTRY_") and name != "GANTRY_HOME"]:
    del os.environ[_name]

from ciserver.lib.keys import ensure_keys  # noqa: E402

ensure_keys(_HOME / "keys")
for _folder in ("db", "run", "logs", "repositories", "mirrors"):
    (_HOME / _folder).mkdir()

import shutil  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402


def pytest_sessionfinish() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


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

    hello = Project.objects.create(slug="hello")
    Membership.objects.create(project=hello, user=alice, role=Role.OWNER)
    Membership.objects.create(project=hello, user=bob, role=Role.DEVELOPER)
    return hello


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
