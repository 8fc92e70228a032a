"""Events as a stream: what is new, from where it was left, of what one may see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from ciserver.accounts.models import Token
from ciserver.pipelines.models import State
from ciserver.releases.events import note
from tests.ciserver.pages.seeding import make_pipeline, make_project

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def told(alice: Any, charlie: Any, project: Any) -> None:
    make_pipeline(project, 1, state=State.PASSED)
    make_pipeline(make_project("other", charlie), 2, state=State.FAILED)
    make_pipeline(project, 3, state=State.FAILED)
    note()


def _token(user: Any, only: Any = None) -> dict[str, str]:
    from ciserver.accounts.models import Scope, Token

    _, text = Token.make(user=user, name="x", scope=Scope.READ, project=only)
    return {"Authorization": f"Bearer {text}"}


def _frames(
    user: Any, query: str = "", last: str = "0", most: int = 3, only: Any = None
) -> list[str]:
    headers = _token(user, only) | {"Last-Event-ID": last}

    async def read() -> list[str]:
        answer = await AsyncClient().get(f"/api/v1/events/{query}", headers=headers)
        assert answer.headers["Content-Type"] == "text/event-stream"
        found = []
        try:
            async with asyncio.timeout(3):
                async for frame in answer.streaming_content:
                    found.append(frame.decode())
                    if len(found) == most:
                        break
        finally:
            answer.close()
        return found

    return asyncio.run(read())


def test_a_reader_gets_what_it_may_see_and_goes_on_where_it_was(told: None, alice: Any) -> None:
    retry, first, second = _frames(alice)
    assert retry.startswith("retry:")
    assert "event: pipeline.passed" in first
    assert "event: pipeline.failed" in second
    assert '"project":"hello"' in second
    number = first.split("\n")[0].removeprefix("id: ")
    assert _frames(alice, "?project=hello", number, 2)[1] == second


def test_a_token_of_one_project_hears_of_that_one_alone(
    told: None, admin_user: Any, project: Any, client: Any
) -> None:
    _, *heard = _frames(admin_user, most=3, only=project)
    assert len(heard) == 2
    assert all('"project":"hello"' in frame for frame in heard)
    token = _token(admin_user, project)
    assert client.get("/api/v1/events/?project=other", headers=token).status_code == 404


@pytest.mark.parametrize("how", ["revoked", "its project deleted and made anew"])
def test_a_stream_ends_with_the_token_that_opened_it(
    told: None, admin_user: Any, project: Any, how: str
) -> None:
    only = None if how == "revoked" else project
    headers = _token(admin_user, only) | {"Last-Event-ID": "0"}

    def end() -> None:
        if only:
            project.delete()  # and the token with it
            make_pipeline(make_project("hello", admin_user), 99, state=State.PASSED)
            note()
        else:
            Token.objects.all().delete()

    async def heard_after() -> str:
        answer = await AsyncClient().get("/api/v1/events/", headers=headers)
        stream = aiter(answer.streaming_content)
        try:
            await anext(stream)
            await anext(stream)
            await sync_to_async(end)()
            async with asyncio.timeout(5):
                return "".join([frame.decode() async for frame in stream])
        finally:
            answer.close()

    assert '"pipeline":99' not in asyncio.run(heard_after())


def test_who_may_not_see_a_project_gets_no_stream_of_it(
    told: None, bob: Any, charlie: Any, client: Any
) -> None:
    assert client.get("/api/v1/events/").status_code == 401
    url = "/api/v1/events/?project=hello"
    assert client.get(url, headers=_token(charlie)).status_code == 404
    wrong = _token(bob) | {"Last-Event-ID": "x"}
    assert client.get(url, headers=wrong).json()["code"] == "events.last-id"
