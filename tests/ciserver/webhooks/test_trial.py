"""The test of a webhook says what is wrong with the way to us. That it arrives, a browser sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest
from django.http.request import HttpHeaders

from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.webhooks import trial
from ciserver.webhooks.forges import FORGES
from ciserver.webhooks.forges.events import Nothing
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


@pytest.mark.parametrize("secret", ["a-secret-long-enough", "whsec_c2VjcmV0LWxvbmctZW5vdWdo"])
@pytest.mark.parametrize("name", FORGES)
def test_it_is_signed_as_each_forge_signs_and_builds_nothing(name: str, secret: str) -> None:
    headers = HttpHeaders(
        {f"HTTP_{key.upper().replace('-', '_')}": value for key, value in _of(name, secret).items()}
    )
    forge = FORGES[name]
    assert forge.verify(headers, trial.BODY, [Secret(secret)])
    assert not forge.verify(headers, trial.BODY, [Secret("another-secret-1")])
    assert secret not in str(_of(name, secret))
    found = forge.envelope(headers)
    assert found.delivery_id.startswith("test-")
    assert [type(event) for event in forge.read(found.event, {})] == [Nothing]


def _of(name: str, secret: str) -> dict[str, str]:
    return trial.signed(name, Secret(secret))


def test_it_tries_the_address_of_the_forge_that_is_named(
    hello: Any, alice: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(httpx, "post", lambda *_, **__: httpx.Response(202))
    client = api_as(alice)
    url = "/api/v1/projects/hello/hook-test/"
    answer = client.post(url, {"forge": "bitbucket-server"}, format="json").json()
    assert answer["url"].endswith("/hooks/bitbucket-server/hello/")
    assert client.post(url, {"forge": "sourceforge"}, format="json").status_code == 400
    with pytest.raises(Refused, match="no forge that Gantry knows"):
        trial.send(hello, alice, "sourceforge")
