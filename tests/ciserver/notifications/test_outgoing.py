"""Webhooks that go out: signed, tried again, shown and sent once more."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from django.test import Client

from ciserver.lib.problems import Refused
from ciserver.notifications import outgoing
from ciserver.notifications.models import Endpoint, Event, Message
from ciserver.pipelines.models import Pipeline, State
from ciserver.releases.events import note
from tests.ciserver.pages.seeding import make_pipeline
from tests.ciserver.repositories.serving import loopback_is_outside
from tests.conftest import api_as

__all__ = ["loopback_is_outside"]
pytestmark = pytest.mark.usefixtures("loopback_is_outside", "sent_at_once")


class Receiver:
    """Keeps what came; ``answers`` are the next statuses, 204 without."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/hook"
        Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def sent_at_once(monkeypatch: Any) -> None:
    """A worker that does at once what it is woken for."""

    def send_task(name: str, args: list[int], **_: Any) -> None:
        if name == outgoing.TASK:
            outgoing.deliver(*args)

    monkeypatch.setattr("ciserver.celery.app.send_task", send_task)


@pytest.fixture
def endpoint(project: Any, alice: Any, receiver: Receiver) -> Any:
    return outgoing.add(project=project, user=alice, url=receiver.url)


def _verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As a library of Standard Webhooks does it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{mac}" in headers["webhook-signature"].split()


def test_each_new_state_is_sent_once_and_signed(
    project: Any, endpoint: Any, receiver: Receiver
) -> None:
    pipeline = make_pipeline(project, 1, state=State.RUNNING)
    note()
    note()
    Pipeline.objects.filter(pk=pipeline.pk).update(state=State.FAILED, reason="a test")
    note()
    told = [json.loads(body) for _, body in receiver.got]
    assert [one["type"] for one in told] == ["pipeline.running", "pipeline.failed"]
    assert told[1]["data"]["project"] == "hello"
    assert told[1]["data"]["reason"] == "a test"
    assert all(_verify(endpoint[1].reveal(), *got) for got in receiver.got)
    assert not _verify(endpoint[1].reveal(), receiver.got[0][0], b"{}")


def test_only_what_was_asked_for_is_sent_and_nothing_of_before_or_of_others(
    project: Any, alice: Any, receiver: Receiver
) -> None:
    from tests.ciserver.pages.seeding import make_project

    make_pipeline(project, 1, state=State.FAILED)
    note()
    outgoing.add(project=project, user=alice, url=receiver.url, types=["pipeline.failed"])
    make_pipeline(project, 2, state=State.PASSED)
    make_pipeline(project, 3, state=State.FAILED)
    make_pipeline(make_project("other", alice), 4, state=State.FAILED)
    note()
    assert [json.loads(body)["data"]["number"] for _, body in receiver.got] == [3]


def test_a_receiver_that_is_away_is_tried_again_under_the_same_id(
    alice: Any, endpoint: Any, receiver: Receiver
) -> None:
    row = endpoint[0]
    receiver.answers = [503, 404]
    message = outgoing.ping(endpoint=row, user=alice)
    for _ in range(3):
        Message.objects.filter(sent_at=None).update(next_at=message.created_at)
        outgoing.wake()
    message.refresh_from_db()
    assert (message.state, message.attempts, message.error) == ("taken", 3, "")
    assert {headers["webhook-id"] for headers, _ in receiver.got} == {message.name}
    outgoing.redeliver(message=message, user=alice)
    outgoing.wake()
    assert len(receiver.got) == 4


def test_it_is_given_up_at_last_and_says_why(alice: Any, endpoint: Any, receiver: Receiver) -> None:
    message = outgoing.ping(endpoint=endpoint[0], user=alice)
    Message.objects.update(attempts=outgoing.MOST_ATTEMPTS - 1)
    receiver.answers = [500]
    outgoing.wake()
    message.refresh_from_db()
    assert message.state == "given up"
    assert "The receiver answered 500" in message.error


def test_a_rotated_secret_signs_beside_the_old_one(
    alice: Any, endpoint: Any, receiver: Receiver
) -> None:
    row, old = endpoint
    new = outgoing.rotate(endpoint=row, user=alice)
    outgoing.ping(endpoint=Endpoint.objects.get(), user=alice)
    outgoing.wake()
    assert _verify(old.reveal(), *receiver.got[0])
    assert _verify(new.reveal(), *receiver.got[0])


def test_a_paused_one_hears_nothing(
    project: Any, alice: Any, endpoint: Any, receiver: Receiver
) -> None:
    outgoing.change(endpoint=endpoint[0], user=alice, active=False)
    make_pipeline(project, 1, state=State.FAILED)
    note()
    assert receiver.got == []


@pytest.mark.parametrize("url", ["ftp://example.org/", "http://169.254.169.254/x", "nowhere"])
def test_an_address_that_is_none_or_within_is_refused(project: Any, alice: Any, url: str) -> None:
    with pytest.raises(Refused) as refused:
        outgoing.add(project=project, user=alice, url=url)
    assert refused.value.code == "webhooks.url"


def test_maintainers_do_all_of_it_by_the_api(
    project: Any, api: Any, bob: Any, receiver: Receiver
) -> None:
    url = "/api/v1/projects/hello/webhooks/"
    made = api.post(url, {"url": receiver.url, "types": ["pipeline.failed"]}, format="json")
    assert made.status_code == 201
    assert made.json()["secret"].startswith("whsec_")
    one = f"{url}{made.json()['id']}/"
    assert "secret" not in api.get(one).json()
    assert api.post(f"{one}test/").status_code == 202
    outgoing.wake()
    (message,) = api.get(f"{one}messages/").json()["results"]
    assert (message["type"], message["state"]) == ("test.ping", "taken")
    assert api.post(f"{one}messages/{message['id']}/redeliver/").status_code == 202
    assert api.post(f"{one}rotate/").json()["secret"] != made.json()["secret"]
    assert api.patch(one, {"types": ["no.such"]}, format="json").status_code == 400
    assert api_as(bob).get(url).status_code == 404
    assert api.delete(one).status_code == 204


def test_the_page_adds_tests_and_removes(
    project: Any, alice: Any, client: Client, receiver: Receiver
) -> None:
    client.force_login(alice)
    page = "/projects/hello/webhooks/"
    assert "whsec_" in client.post(page, {"url": receiver.url}).content.decode()
    assert "whsec_" not in client.get(page).content.decode()
    one = f"{page}{Endpoint.objects.get().pk}/"
    client.post(one, {"do": "test"})
    outgoing.wake()
    assert len(receiver.got) == 1
    client.post(one, {"do": "redeliver", "message": str(Message.objects.get().pk)})
    outgoing.wake()
    assert len(receiver.got) == 2
    client.post(one, {"do": "remove"})
    assert not Endpoint.objects.exists()


def test_old_events_and_messages_are_forgotten(
    project: Any, alice: Any, endpoint: Any, receiver: Receiver
) -> None:
    make_pipeline(project, 1, state=State.FAILED)
    note()
    long_ago = "2020-01-01T00:00:00Z"
    Event.objects.update(at=long_ago)
    Message.objects.update(created_at=long_ago)
    assert outgoing.forget_old() == 2
