"""Webhooks that come at once are recorded in one transaction; none suffers for another."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from django.db import DataError, connection, transaction
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from ciserver.lib.models import OutboxEntry
from ciserver.projects.models import Project
from ciserver.webhooks import services
from ciserver.webhooks.intake import Hook, answer_all
from ciserver.webhooks.models import Delivery
from tests.ciserver.webhooks.conftest import push

pytestmark = pytest.mark.django_db


def hook(secret: str, body: Any, *, delivery: str, slug: str = "hello") -> Hook:
    raw = json.dumps(body).encode()
    mac = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    headers = {
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": f"sha256={mac}",
    }
    address = f"/hooks/github/{slug}/"
    request = RequestFactory().post(address, raw, "application/json", headers=headers)
    return Hook(request, "github", slug)


def test_each_gets_its_own_answer_in_the_order_in_which_they_came(secret: str) -> None:
    other = Project.objects.create(slug="other")
    of_other = other.renew_hook_secret().reveal()
    hooks = [
        hook(of_other, push(), delivery="a", slug="other"),
        hook(secret, push(), delivery="b"),
        hook("wrong", push(), delivery="c"),
        hook(secret, push(after="not a commit"), delivery="d"),
        hook(secret, ["no object"], delivery="e"),
        hook(secret, push(), delivery="b"),
        hook(secret, push("refs/heads/more"), delivery="f"),
    ]

    answers = answer_all(hooks)

    assert [answer.status_code for answer in answers] == [202, 202, 401, 400, 400, 200, 202]
    accepted = Delivery.objects.filter(verdict="accepted").order_by("id")
    assert [d.delivery_id for d in accepted] == ["b", "f", "a"]
    failed = Delivery.objects.filter(verdict="failed").order_by("id")
    assert [d.delivery_id for d in failed] == ["d", "e"]
    assert OutboxEntry.objects.filter(topic="delivery.accepted").count() == 3


@pytest.mark.django_db(transaction=True)
def test_they_are_committed_once_and_what_is_unsigned_opens_no_transaction(secret: str) -> None:
    with CaptureQueriesContext(connection) as asked:
        answer_all([hook(secret, push(f"refs/heads/b{n}"), delivery=f"d-{n}") for n in range(3)])
    assert [query["sql"] for query in asked.captured_queries].count("COMMIT") == 1

    with CaptureQueriesContext(connection) as asked:
        assert [a.status_code for a in answer_all([hook("wrong", push(), delivery="x")])] == [401]
    assert not any("BEGIN" in query["sql"] for query in asked.captured_queries)


def test_one_that_cannot_be_recorded_spoils_no_other(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = services.receive

    def choosy(**told: Any) -> Any:
        recorded = receive(**told)
        match told["envelope"].delivery_id:
            case "data":
                with transaction.atomic():
                    raise DataError("too long")
            case "bug":
                raise LookupError("nobody foresaw it")
        return recorded

    # As the real one is: what fails takes back what it wrote.
    monkeypatch.setattr(services, "receive", transaction.atomic(choosy))

    answers = answer_all(
        [hook(secret, push(f"refs/heads/{d}"), delivery=d) for d in ("a", "data", "bug", "b")]
    )

    assert [answer.status_code for answer in answers] == [202, 503, 500, 202]
    assert {d.delivery_id for d in Delivery.objects.all()} == {"a", "b"}


def test_a_transaction_that_will_not_be_committed_is_a_503_for_all(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = services.receive

    def broken(**told: Any) -> Any:
        recorded = receive(**told)
        if told["envelope"].delivery_id == "b":
            transaction.set_rollback(True)
        return recorded

    monkeypatch.setattr(services, "receive", broken)

    answers = answer_all([hook(secret, push(f"refs/heads/{d}"), delivery=d) for d in ("a", "b")])

    assert [answer.status_code for answer in answers] == [503, 503]
    assert not Delivery.objects.exists()
