"""GitHub's webhooks, from the first byte to the row."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import DatabaseError
from django.test import Client

from ciserver.lib.models import OutboxEntry
from ciserver.projects.models import Project
from ciserver.webhooks import services
from ciserver.webhooks.models import Delivery
from tests.ciserver.webhooks.conftest import SHA, Post, push, sign


def test_a_push_is_recorded_promised_and_then_accepted(post: Post, project: Any) -> None:
    answer = post(push())

    assert answer.status_code == 202
    delivery = Delivery.objects.get()
    assert answer.json() == {"delivery": delivery.pk, "verdict": "accepted", "detail": ""}
    assert (delivery.project, delivery.forge, delivery.event) == (project, "github", "push")
    assert (delivery.kind, delivery.ref, delivery.sha) == ("push", "refs/heads/main", SHA)
    assert (delivery.sender, delivery.delivery_id) == ("octocat", "d-1")
    assert json.loads(bytes(delivery.body)) == push()
    promise = OutboxEntry.objects.get()
    assert (promise.topic, promise.object_id) == ("delivery.accepted", delivery.pk)


def test_no_header_that_holds_a_secret_is_kept(post: Post) -> None:
    post(push(), Authorization="Bearer x", Cookie="a=b")

    assert set(Delivery.objects.get().headers) == {
        "X-GitHub-Event",
        "X-GitHub-Delivery",
        "Content-Type",
    }


def test_the_same_delivery_again_does_nothing(post: Post) -> None:
    first = post(push()).json()

    again = post(push())

    assert again.status_code == 200
    assert again.json()["verdict"] == "duplicate"
    assert again.json()["delivery"] == first["delivery"]
    assert Delivery.objects.count() == OutboxEntry.objects.count() == 1


def test_the_same_commit_under_a_new_id_is_a_duplicate_that_is_shown(post: Post) -> None:
    post(push())

    answer = post(push(), delivery="d-2")

    assert answer.status_code == 200
    verdicts = Delivery.objects.order_by("id").values_list("verdict", flat=True)
    assert list(verdicts) == ["accepted", "duplicate"]
    assert OutboxEntry.objects.count() == 1


def test_a_signed_request_without_an_id_is_known_again_by_its_body(post: Post) -> None:
    assert post(push(), delivery="").status_code == 202
    assert post(push(), delivery="").json()["verdict"] == "duplicate"
    assert Delivery.objects.count() == 1


def test_another_branch_at_the_same_commit_is_another_push(post: Post) -> None:
    post(push())

    assert post(push("refs/heads/other"), delivery="d-2").status_code == 202


@pytest.mark.parametrize(
    ("event", "body", "said"),
    [
        ("ping", {"zen": "Keep it logically awesome.", "hook_id": 1}, "the webhook works"),
        ("star", {"action": "created"}, "Nothing is built for the event 'star'."),
        ("", {}, "Nothing is built for the event ''."),
        ("push", push("refs/notes/x"), "no branch and no tag"),
        ("push", push(after="0" * 40, deleted=True), "was deleted: there is nothing to build"),
    ],
)
def test_what_starts_nothing_is_answered_2xx_and_recorded(
    post: Post, event: str, body: Any, said: str
) -> None:
    answer = post(body, event=event)

    assert answer.status_code == 200
    assert answer.json()["verdict"] == "ignored"
    assert said in Delivery.objects.get().detail
    assert not OutboxEntry.objects.exists()


def test_a_form_is_read_too(post: Post) -> None:
    form = urlencode({"payload": json.dumps(push())}).encode()

    answer = post(form, content_type="application/x-www-form-urlencoded")

    assert answer.status_code == 202
    assert Delivery.objects.get().sha == SHA


def _forged(secret: str) -> dict[str, dict[str, str]]:
    good = sign(secret, b"{}")
    return {
        "none": {},
        "empty": {"X-Hub-Signature-256": ""},
        "of another secret": {"X-Hub-Signature-256": sign("other", b"{}")},
        "of another body": {"X-Hub-Signature-256": sign(secret, b"{ }")},
        "without its prefix": {"X-Hub-Signature-256": good.removeprefix("sha256=")},
        "in capitals": {"X-Hub-Signature-256": good.upper()},
        "too long": {"X-Hub-Signature-256": good + "0"},
        "no ASCII": {"X-Hub-Signature-256": "sha256=é"},
        "the secret itself": {"X-Hub-Signature-256": secret},
        "the old kind": {"X-Hub-Signature": "sha1=" + "0" * 40},
        "GitLab's": {"X-Gitlab-Token": secret},
    }


def test_whatever_is_wrong_with_a_signature_the_answer_is_the_same(secret: str, db: None) -> None:
    Project.objects.create(slug="no-secret")
    client = Client()
    answers = set()
    for headers in _forged(secret).values():
        answer = client.post("/hooks/github/hello/", b"{}", "application/json", headers=headers)
        answers.add((answer.status_code, answer.content))
    for slug in ("missing", "no-secret"):
        headers = {"X-Hub-Signature-256": sign(secret, b"{}")}
        answer = client.post(f"/hooks/github/{slug}/", b"{}", "application/json", headers=headers)
        answers.add((answer.status_code, answer.content))

    assert len(answers) == 1
    [(status, content)] = answers
    assert status == 401
    problem = json.loads(content)
    assert problem["code"] == "bad-signature"
    assert problem["detail"] == "The signature is missing or wrong."
    assert not Delivery.objects.exists()


def test_a_project_without_a_secret_refuses_even_an_empty_one(db: None) -> None:
    Project.objects.create(slug="no-secret")
    headers = {"X-Hub-Signature-256": sign("", b"{}")}

    answer = Client().post("/hooks/github/no-secret/", b"{}", "application/json", headers=headers)

    assert answer.status_code == 401


def test_a_secret_that_does_not_open_refuses(post: Post, project: Any) -> None:
    project.hook_secret_sealed = "1:AAAA"
    project.save()

    assert post(push()).status_code == 401


def test_the_csrf_check_does_not_stand_in_the_way(secret: str) -> None:
    client = Client(enforce_csrf_checks=True)
    headers = {"X-Hub-Signature-256": sign(secret, b"{}"), "X-GitHub-Event": "ping"}

    answer = client.post("/hooks/github/hello/", b"{}", "application/json", headers=headers)

    assert answer.status_code == 200


def test_an_unknown_forge_and_another_method_are_refused(post: Post) -> None:
    assert Client().post("/hooks/sourceforge/hello/").status_code == 404
    assert Client().get("/hooks/github/hello/").status_code == 405


def test_a_database_that_is_away_is_never_a_2xx(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: Any) -> Any:
        raise DatabaseError("away")

    monkeypatch.setattr(services, "receive", away)

    answer = post(push())

    assert answer.status_code == 503
    assert answer["Retry-After"] == "10"
