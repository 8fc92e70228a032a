"""The test of a webhook says what is wrong with the way to us. That it arrives, a browser sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from ciserver.lib.problems import Refused
from ciserver.webhooks import trial
from tests.conftest import api_as


@pytest.fixture
def hello(project: Any) -> Any:
    project.renew_hook_secret()
    return project


def test_without_a_secret_it_says_to_make_one(project: Any, alice: Any) -> None:
    with pytest.raises(Refused, match="has no webhook secret yet"):
        trial.send(project, alice)


def test_only_maintainers_send_it(hello: Any, bob: Any) -> None:
    with pytest.raises(Refused, match="role maintainer"):
        trial.send(hello, bob)


def test_an_address_where_nothing_answers_is_told(hello: Any, alice: Any, settings: Any) -> None:
    settings.GANTRY = replace(settings.GANTRY, url="http://127.0.0.1:1")
    answer = api_as(alice).post("/api/v1/projects/hello/hook-test/").json()
    assert (answer["good"], answer["status"]) == (False, None)
    assert answer["words"].startswith("Nothing answers at http://127.0.0.1:1/hooks/generic/hello/")
    assert "GANTRY_URL" in answer["words"]


def test_another_service_at_our_address_is_told(hello: Any, alice: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(httpx, "post", lambda *_, **__: httpx.Response(404))
    done = trial.send(hello, alice)
    assert not done.good
    assert "answered 404 to a signed test" in done.words
