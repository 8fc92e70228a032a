"""A browser's view of the service, without the browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client

from tests.ciserver.pages.serving import Stage, open_stage

SignIn = Callable[[Any], Client]


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """For tests of one of ``tests.groups.GROUPS``: every process that runs one would start it."""
    with open_stage(tmp_path_factory.mktemp("stage") / "home") as opened:
        opened("history")
        opened("user", name="charlie")
        yield opened


@pytest.fixture
def sign_in() -> SignIn:
    """``sign_in(user)``: a client that is signed in and whose forms need their token."""

    def make(user: Any) -> Client:
        client = Client(raise_request_exception=False)
        client.force_login(user)
        return client

    return make


@pytest.fixture
def hello(alice: Any, bob: Any) -> Any:
    """Project ``hello`` with a history; bob develops in it, charlie has no part."""
    from ciserver.projects.models import Membership, Role
    from tests.ciserver.pages.seeding import make_hello

    project = make_hello(alice)
    Membership.objects.create(project=project, user=bob, role=Role.DEVELOPER)
    return project
