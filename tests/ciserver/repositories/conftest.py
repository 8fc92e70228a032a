"""One server for all tests here, and tokens for the cast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.ciserver.repositories.serving import Server, loopback_is_outside, no_repositories, serve

__all__ = ["loopback_is_outside", "no_repositories"]


@pytest.fixture(scope="session")
def running(django_db_setup: None, django_db_blocker: Any) -> Iterator[Server]:
    with django_db_blocker.unblock(), serve() as server:
        yield server


@pytest.fixture
def server(running: Server, transactional_db: None) -> Server:
    return running


@pytest.fixture
def token_of() -> Callable[..., str]:
    from ciserver.accounts.models import Scope, Token

    def make(user: Any, scope: str = "write") -> str:
        return Token.make(user=user, name="test", scope=Scope(scope))[1]

    return make
