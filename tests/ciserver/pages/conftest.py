"""A browser's view of the service, without the browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

SignIn = Callable[[Any], Client]


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
