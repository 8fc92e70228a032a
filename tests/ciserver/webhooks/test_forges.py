"""Each forge's way of signing and telling, with payloads as its documentation shows them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.utils import timezone

from ciserver.webhooks.models import Delivery, Poll
from ciserver.webhooks.services import forget_old

SHA, ZERO, MAIN = "a" * 40, "0" * 40, "refs/heads/main"
PLAIN = {"ref": MAIN, "before": ZERO, "after": SHA}
CLOUD = {
    "push": {
        "changes": [
            {"old": None, "new": {"type": "branch", "name": "main", "target": {"hash": SHA}}},
            {"old": {"type": "branch", "name": "x"}, "new": None},
        ]
    },
    "actor": {"display_name": "Emma"},
}
SERVER = {
    "eventKey": "repo:refs_changed",
    "actor": {"name": "admin"},
    "changes": [{"ref": {"id": MAIN, "type": "BRANCH"}, "toHash": SHA, "type": "UPDATE"}],
}
FORGES: dict[str, tuple[dict[str, str], str, str, Any]] = {
    "gitlab": (
        {"X-Gitlab-Event": "Push Hook", "Idempotency-Key": "1"}, "X-Gitlab-Token", "", PLAIN,
    ),
    "gitea": ({"X-Gitea-Event": "push", "X-Gitea-Delivery": "1"}, "X-Gitea-Signature", "", PLAIN),
    "forgejo": (
        {"X-Forgejo-Event": "push", "X-Forgejo-Delivery": "1"}, "X-Forgejo-Signature", "", PLAIN,
    ),
    "bitbucket": (
        {"X-Event-Key": "repo:push", "X-Request-UUID": "1"}, "X-Hub-Signature", "sha256=", CLOUD,
    ),
    "bitbucket-server": (
        {"X-Event-Key": "repo:refs_changed", "X-Request-Id": "1"},
        "X-Hub-Signature", "sha256=", SERVER,
    ),
    "generic": ({"X-Gantry-Delivery": "1"}, "X-Gantry-Signature", "sha256=", PLAIN),
}  # fmt: skip


@pytest.fixture
def secret(project: Any) -> str:
    return str(project.renew_hook_secret().reveal())


def send(forge: str, key: str, body: Any = None, **more: str) -> Any:
    headers, name, prefix, payload = FORGES[forge]
    raw = (
        body if isinstance(body, bytes) else json.dumps(payload if body is None else body).encode()
    )
    mac = prefix + hmac.new(key.encode(), raw, hashlib.sha256).hexdigest()
    signed = {name: key if forge == "gitlab" else mac}
    client = Client(raise_request_exception=False)
    return client.post(
        f"/hooks/{forge}/hello/", raw, "application/json", headers=headers | signed | more
    )


@pytest.mark.parametrize("forge", FORGES)
def test_a_push_is_taken_once(forge: str, secret: str) -> None:
    assert send(forge, secret).status_code == 202
    assert send(forge, secret).status_code == 200

    delivery = Delivery.objects.get(verdict="accepted")
    assert (delivery.forge, delivery.ref, delivery.sha) == (forge, MAIN, SHA)
    assert secret not in str(delivery.headers)


@pytest.mark.parametrize("forge", FORGES)
def test_a_wrong_or_empty_signature_is_a_401(forge: str, secret: str) -> None:
    assert send(forge, "wrong").status_code == 401
    assert send(forge, secret, **{FORGES[forge][1]: ""}).status_code == 401
    assert not Delivery.objects.exists()


@pytest.mark.parametrize("forge", FORGES)
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b"{}", b'{"push": {"changes": [1]}}'])
def test_a_signed_body_of_the_wrong_shape_is_a_400(forge: str, body: bytes, secret: str) -> None:
    assert send(forge, secret, body).status_code == 400


def test_every_change_of_one_request_is_recorded(secret: str) -> None:
    send("bitbucket", secret)

    found = Delivery.objects.order_by("id").values_list("ref", "kind", "verdict")
    assert list(found) == [(MAIN, "push", "accepted"), ("refs/heads/x", "delete", "ignored")]


@pytest.mark.parametrize("forge", ["bitbucket", "bitbucket-server"])
def test_of_very_many_changes_the_first_are_recorded_and_the_others_looked_for(
    forge: str, secret: str, project: Any
) -> None:
    Poll.objects.create(project=project, next_at=timezone.now() + timedelta(minutes=5))
    if forge == "bitbucket":
        body: Any = {"push": {"changes": []}}
        change = {"old": None, "new": {"type": "branch", "target": {"hash": SHA}}}
        several = [change | {"new": {**change["new"], "name": f"b{n}"}} for n in range(120)]
        body["push"]["changes"] = several
    else:
        refs = [{"id": f"refs/heads/b{n}"} for n in range(120)]
        body = {"changes": [{"ref": ref, "toHash": SHA} for ref in refs]}

    assert send(forge, secret, body).status_code == 202

    assert Delivery.objects.filter(verdict="accepted").count() == 100
    assert Delivery.objects.get(verdict="ignored").detail.startswith("20 more refs are told of")
    assert Poll.objects.get().next_at <= timezone.now()


def test_gitlabs_test_of_a_merge_request_and_one_without_a_commit_are_a_200(secret: str) -> None:
    event = {"X-Gitlab-Event": "Merge Request Hook"}
    told = {"iid": 7, "source_branch": "x", "target_branch": "main", "last_commit": {"id": SHA}}
    for number, more in enumerate(({}, {"action": None}, {"action": "open", "last_commit": None})):
        body = {"object_attributes": told | more}
        answer = send("gitlab", secret, body, **event, **{"Idempotency-Key": f"t{number}"})
        assert answer.status_code == 200, answer.json()
    assert send("gitlab", secret, {"object_attributes": []}, **event).status_code == 400


def test_bitbuckets_pull_request_of_a_fork_that_is_gone_is_a_200(secret: str) -> None:
    source = {"branch": {"name": "x"}, "commit": None, "repository": None}
    body = {"pullrequest": {"id": 7, "source": source, "destination": {}}}
    answer = send("bitbucket", secret, body, **{"X-Event-Key": "pullrequest:rejected"})
    assert answer.status_code == 200


@pytest.mark.parametrize("form", [False, True])
def test_the_secret_that_old_gitea_sends_in_its_body_is_not_kept(secret: str, form: bool) -> None:
    raw = json.dumps({"secret": secret} | PLAIN).encode()
    mac = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    headers = {"X-Gitea-Event": "push", "X-Gitea-Signature": mac}
    kind = "application/x-www-form-urlencoded" if form else "application/json"
    body = urlencode({"payload": raw}).encode() if form else raw

    assert Client().post("/hooks/gitea/hello/", body, kind, headers=headers).status_code == 202

    kept = bytes(Delivery.objects.get().body).decode()
    assert "***" in kept
    assert secret not in kept


def test_bitbuckets_ping_is_a_200(secret: str) -> None:
    ping = {"X-Event-Key": "diagnostics:ping"}
    assert send("bitbucket-server", secret, {"test": True}, **ping).status_code == 200


def test_gitea_signs_the_json_inside_a_form(secret: str) -> None:
    raw = json.dumps(PLAIN).encode()
    mac = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    form = urlencode({"payload": raw}).encode()
    headers = {"X-Gitea-Event": "push", "X-Gitea-Signature": mac}
    kind = "application/x-www-form-urlencoded"
    answer = Client().post("/hooks/gitea/hello/", form, kind, headers=headers)
    assert answer.status_code == 202


@pytest.mark.parametrize(("late", "status"), [(0, 202), (301, 401), (-301, 401)])
def test_gitlabs_signing_token_counts_for_five_minutes(late: int, status: int, secret: str) -> None:
    stamp = str(int(time.time()) - late)
    raw = json.dumps(PLAIN).encode()
    mac = hmac.new(secret.encode(), f"i.{stamp}.".encode() + raw, hashlib.sha256).digest()
    headers = {"X-Gitlab-Event": "Push Hook", "webhook-id": "i", "webhook-timestamp": stamp}
    headers["webhook-signature"] = "v1," + base64.b64encode(mac).decode()
    answer = Client().post("/hooks/gitlab/hello/", raw, "application/json", headers=headers)
    assert answer.status_code == status


def test_two_secrets_count_while_one_takes_the_place_of_the_other(
    secret: str, project: Any
) -> None:
    project.refresh_from_db()
    new = project.renew_hook_secret().reveal()
    assert send("generic", secret).status_code == 202
    assert send("generic", new).status_code == 200

    project.hook_secret_old_until = timezone.now()
    project.save()
    assert send("generic", secret).status_code == 401
    assert send("generic", new).status_code == 200


def test_a_secret_that_leaked_ends_at_once(secret: str, project: Any, api: Any) -> None:
    answer = api.post("/api/v1/projects/hello/hook-secret/", {"drop_old": True}, format="json")

    assert send("generic", secret).status_code == 401
    assert send("generic", answer.json()["secret"]).status_code == 202


def test_the_old_secret_is_ended_on_the_page_once_every_forge_has_the_new_one(
    secret: str, project: Any, alice: Any
) -> None:
    project.refresh_from_db()
    new = project.renew_hook_secret().reveal()
    page = Client()
    page.force_login(alice)
    assert "End it now" in page.get("/projects/hello/").content.decode()

    assert page.post("/projects/hello/hook-secret/", {"end_old": "1"}).status_code == 302

    assert "End it now" not in page.get("/projects/hello/").content.decode()
    assert send("generic", secret).status_code == 401
    assert send("generic", new).status_code == 202
    assert page.post("/projects/hello/hook-secret/", {"end_old": "1"}).status_code == 409


def test_deliveries_are_kept_for_90_days_and_last_words_for_longer(secret: str) -> None:
    send("bitbucket", secret)
    Delivery.objects.update(received_at=timezone.now() - timedelta(days=89))
    assert forget_old() == 0
    Delivery.objects.update(received_at=timezone.now() - timedelta(days=91))
    assert forget_old() == 1
    assert Delivery.objects.get().verdict == "accepted"


def test_a_secret_that_the_forge_made_is_entered(secret: str, api: Any, alice: Any) -> None:
    made = "whsec_" + base64.b64encode(b"k" * 32).decode()
    url = "/api/v1/projects/hello/hook-secret/"
    assert api.post(url, {"secret": made}, format="json").json() == {"secret": made}
    assert send("generic", made).status_code == 202
    assert send("generic", secret).status_code == 200
    for wrong in ({"secret": "short"}, {"secret": {}}, {"drop_old": "perhaps"}):
        assert api.post(url, wrong, format="json").status_code == 400
    page = Client()
    page.force_login(alice)
    form = {"secret": "another-that-the-forge-made", "drop_old": "on"}
    assert page.post("/projects/hello/hook-secret/", form).status_code == 200
    assert send("generic", made).status_code == 401
    assert send("generic", "another-that-the-forge-made").status_code == 200
