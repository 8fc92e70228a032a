"""Pages whose rows come and go ask for those alone, and mostly hear that nothing changed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.notifications import outgoing
from ciserver.notifications.models import CommitStatus, Message
from ciserver.releases.models import Host
from ciserver.webhooks.models import Delivery
from tests.ciserver.pages import seeding

pytestmark = pytest.mark.django_db


def _delivery(hello: Any) -> None:
    seeding.make_delivery(hello, None, 99, ref="refs/heads/fresh")


def _planned(hello: Any) -> None:
    Delivery.objects.filter(delivery_id="waits").update(pipeline=hello.pipelines.get(number=5))


def _audit(hello: Any) -> None:
    AuditEntry.record(actor="carol", action="project.fresh", target="hello")


def _host(hello: Any) -> None:
    Host.objects.filter(name="local").update(problem="No engine answers: fresh.")


def _status(hello: Any) -> None:
    CommitStatus.objects.create(
        project=hello, sha="f" * 40, state="success", pipeline=5, url="/fresh"
    )


def _sent(hello: Any) -> None:
    Message.objects.update(error="fresh: 500", attempts=1)


def _image(hello: Any) -> None:
    seeding.make_image(seeding.make_passed(hello.__class__.objects.get(slug="fresh"), 1))


PAGES: list[tuple[str, Callable[[Any], None], str]] = [
    ("/projects/hello/deliveries/", _delivery, "refs/heads/fresh"),
    ("/projects/hello/deliveries/{waits}/", _planned, "pipeline #5"),
    ("/projects/hello/audit/", _audit, "project.fresh"),
    ("/hosts/", _host, "No engine answers: fresh."),
    ("/projects/hello/statuses/", _status, "/fresh"),
    ("/projects/hello/webhooks/", _sent, "fresh: 500"),
    ("/projects/fresh/pipelines/", _image, "#1</span>"),
    ("/registry/", _image, ">fresh</a>"),
]


@pytest.mark.parametrize(("path", "change", "shown"), PAGES)
def test_what_changes_is_told_alone_and_once(
    path: str, change: Callable[[Any], None], shown: str, alice: Any, sign_in: Any
) -> None:
    hello = seeding.make_hello(alice)
    seeding.make_project("fresh", alice)
    seeding.make_delivery(hello, None, 98, delivery_id="waits")
    endpoint, _ = outgoing.add(project=hello, user=alice, url="https://1.1.1.1/")
    outgoing.ping(endpoint=endpoint, user=alice)
    client = sign_in(alice)
    url = path.format(waits=Delivery.objects.get(delivery_id="waits").pk)
    page = client.get(url).content.decode()
    assert page.count('id="live"') == 1
    assert shown not in page
    first = client.get(url, headers={"X-Live": "1"})
    assert "<html" not in first.content.decode()
    quiet = {"X-Live": "1", "If-None-Match": first["ETag"]}
    assert client.get(url, headers=quiet).status_code == 304
    change(hello)
    fresh = client.get(url, headers=quiet)
    assert fresh.status_code == 200
    assert shown in fresh.content.decode()


def test_what_was_sent_is_sent_again_by_a_button_that_a_live_part_may_hold(
    alice: Any, sign_in: Any
) -> None:
    """The button names its form, which stays on the page with its token."""
    hello = seeding.make_hello(alice)
    endpoint, _ = outgoing.add(project=hello, user=alice, url="https://1.1.1.1/")
    message = outgoing.ping(endpoint=endpoint, user=alice)
    Message.objects.update(next_at=None, sent_at=timezone.now())
    client = sign_in(alice)
    html = client.get("/projects/hello/webhooks/").content.decode()
    button = re.search(r'<button[^>]*form="again"[^>]*>', html)[0]  # type: ignore[index]
    form = re.search(r'<form method="post" id="again">.*?</form>', html)[0]  # type: ignore[index]
    assert f'value="{message.pk}"' in button
    assert "csrfmiddlewaretoken" in form
    url = re.search('formaction="([^"]*)"', button)[1]  # type: ignore[index]
    answer = client.post(url, {"do": "redeliver", "message": message.pk})
    assert answer.status_code == 302
    message.refresh_from_db()
    assert message.state == "waiting"
