"""The API's rate limits, counted in a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ciserver.accounts import limits
from tests.conftest import api_as
from tests.webserver import redis


@pytest.fixture
def three_a_minute(settings: Any, tmp_path: Path) -> Iterator[None]:
    (tmp_path / "run").mkdir()
    socket = tmp_path / "run" / "redis.sock"
    settings.GANTRY = replace(
        settings.GANTRY, redis_url=f"unix://{socket}", api_rate=3, api_anonymous_rate=2
    )
    _anew()
    with redis(tmp_path):
        yield
    _anew()


def _anew() -> None:
    limits._client.cache_clear()
    limits._away_until[0] = 0.0


def test_one_too_many_is_told_when_to_go_on(three_a_minute: None, api: Any, bob: Any) -> None:
    left = [api.get("/api/v1/me/").headers["RateLimit-Remaining"] for _ in range(3)]
    assert left in (["2", "1", "0"], ["2", "1", "2"], ["2", "2", "1"])  # a minute may begin within
    answers = [api.get("/api/v1/me/") for _ in range(4)]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["code"] == "throttled"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit-Limit"] == "3"
    assert api_as(bob).get("/api/v1/me/").status_code == 200


def test_wrong_tokens_are_counted_by_address(three_a_minute: None, db: None, client: Any) -> None:
    statuses = [
        client.get("/api/v1/me/", headers={"Authorization": f"Bearer gantry_{n}"}).status_code
        for n in range(6)
    ]
    assert set(statuses) == {401, 429}


def test_without_redis_nobody_is_refused(settings: Any, tmp_path: Path, api: Any) -> None:
    nowhere = f"unix://{tmp_path}/nothing.sock"
    settings.GANTRY = replace(settings.GANTRY, redis_url=nowhere, api_rate=1)
    _anew()
    answers = [api.get("/api/v1/me/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert "RateLimit-Limit" not in answers[0].headers
    _anew()
