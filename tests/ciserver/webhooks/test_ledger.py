"""Every delivery is kept, found again, and can be taken once more, by the same rules."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from ciserver.accounts.models import AuditEntry
from ciserver.lib.models import OutboxEntry
from ciserver.pipelines.models import Pipeline
from ciserver.webhooks.models import Delivery
from ciserver.webhooks.tasks import plan
from tests.ciserver.webhooks.conftest import SHA, Post, push
from tests.conftest import api_as

PAGE = "/projects/hello/deliveries/"


@pytest.fixture
def told(post: Post) -> Delivery:
    """A push, a ping, and the push again."""
    post(push())
    post({}, event="ping", delivery="d-2")
    post(push(), delivery="d-3")
    return Delivery.objects.get(delivery_id="d-1")


def client_of(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("d-2", ["d-2"]),
        (SHA[:7], ["d-3", "d-1"]),
        ("MAIN", ["d-3", "d-1"]),
        ("octo", ["d-3", "d-1"]),
        ("ping", ["d-2"]),
        ("nothing like it", []),
        ("", ["d-3", "d-2", "d-1"]),
    ],
)
def test_they_are_found_by_id_commit_ref_sender_or_event(
    told: Delivery, api: Any, words: str, found: list[str]
) -> None:
    rows = api.get("/api/v1/deliveries/", {"q": words}).json()["results"]
    assert [row["delivery_id"] for row in rows] == found


def test_a_number_finds_our_own_id(told: Delivery, api: Any) -> None:
    rows = api.get("/api/v1/deliveries/", {"q": str(told.pk)}).json()["results"]
    assert told.pk in [row["id"] for row in rows]


def test_the_page_lists_them_by_words_and_verdict(told: Delivery, alice: Any) -> None:
    client = client_of(alice)

    everything = client.get(PAGE).content.decode()
    assert everything.count('class="list-row"') == 3
    found = client.get(PAGE, {"q": "main", "verdict": "duplicate"}).content.decode()
    assert found.count('class="list-row"') == 1
    assert "came already" in found
    assert "No delivery fits." in client.get(PAGE, {"q": "zzz"}).content.decode()


def test_an_empty_ledger_says_what_to_do(project: Any, alice: Any) -> None:
    assert "Nothing was delivered yet" in client_of(alice).get(PAGE).content.decode()


def test_a_delivery_shows_its_headers_its_body_its_verdict_and_no_secret(
    told: Delivery, alice: Any
) -> None:
    text = client_of(alice).get(told.get_absolute_url()).content.decode()

    assert "X-GitHub-Delivery" in text
    assert "octocat" in text
    assert "starts a pipeline" in text
    assert "sha256=" not in text


def test_who_only_looks_on_reads_no_body(told: Delivery, charlie: Any) -> None:
    from ciserver.projects.models import Membership, Role

    Membership.objects.create(project=told.project, user=charlie, role=Role.VIEWER)
    text = client_of(charlie).get(told.get_absolute_url()).content.decode()
    assert "A developer of the project can read it." in text
    assert "Deliver again" not in text
    row = api_as(charlie).get(f"/api/v1/deliveries/{told.pk}/").json()
    assert (row["ref"], row["body"]) == ("refs/heads/main", "")
    again = api_as(charlie).post(f"/api/v1/deliveries/{told.pk}/redeliver/")
    assert again.status_code == 403


def test_a_stranger_finds_no_page(told: Delivery, charlie: Any) -> None:
    client = client_of(charlie)
    for path in (PAGE, told.get_absolute_url(), f"{told.get_absolute_url()}redeliver/"):
        assert client.post(path).status_code in {404, 405}
        assert client.get(path).status_code in {404, 405}


def test_one_that_failed_is_taken_again_by_a_developer(told: Delivery, bob: Any) -> None:
    Delivery.objects.filter(pk=told.pk).update(verdict="failed", detail="The forge was away.")
    OutboxEntry.objects.all().delete()

    answer = client_of(bob).post(f"{told.get_absolute_url()}redeliver/")

    again = Delivery.objects.latest("pk")
    assert answer["Location"] == again.get_absolute_url()
    assert (again.ref, again.sha, again.verdict) == (told.ref, told.sha, "accepted")
    assert again.body == told.body
    assert OutboxEntry.objects.filter(topic="delivery.accepted", object_id=again.pk).exists()
    entry = AuditEntry.objects.get(action="delivery.redeliver")
    assert (entry.actor, entry.detail) == ("bob", {"became": again.pk})


def test_one_that_is_being_built_is_a_duplicate_when_taken_again(told: Delivery, api: Any) -> None:
    answer = api.post(f"/api/v1/deliveries/{told.pk}/redeliver/")

    assert answer.status_code == 201
    assert answer.json()["verdict"] == "duplicate"
    assert OutboxEntry.objects.filter(topic="delivery.accepted").count() == 1


def test_what_told_of_nothing_cannot_be_taken_again(told: Delivery, api: Any) -> None:
    ping = Delivery.objects.get(event="ping")

    answer = api.post(f"/api/v1/deliveries/{ping.pk}/redeliver/")

    assert answer.status_code == 409
    assert answer.json()["detail"] == f"Delivery {ping.pk} told of nothing that could be built."


def test_a_delivery_in_the_middle_of_its_planning_is_planned_once(told: Delivery, api: Any) -> None:
    for _ in range(3):
        api.post(f"/api/v1/deliveries/{told.pk}/redeliver/")
    for entry in OutboxEntry.objects.filter(topic="delivery.accepted"):
        plan(entry.object_id)
    assert Pipeline.objects.count() <= 1
