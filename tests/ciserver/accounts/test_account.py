"""One's own account: password, and where one is signed in."""

from __future__ import annotations

from typing import Any

from django.test import Client

from ciserver.accounts.models import AuditEntry, Session
from tests.conftest import api_as

NEW = "a-password-of-her-own"


def _signed_in(agent: str = "Lynx") -> Client:
    client = Client(HTTP_USER_AGENT=agent, REMOTE_ADDR="192.0.2.7")
    form = {"username": "alice", "password": "alice-password-1"}
    assert client.post("/login/", form).status_code == 302
    return client


def _change(client: Client, **other: str) -> Any:
    form = {"old": "alice-password-1", "new": NEW, "again": NEW}
    return client.post("/account/", form | other)


def test_a_new_password_ends_every_other_session(alice: Any) -> None:
    here, there = _signed_in(), _signed_in()
    assert _change(here).status_code == 302
    assert here.get("/").status_code == 200
    assert there.get("/").status_code == 302
    assert alice.sessions.count() == 1
    entry = AuditEntry.objects.get(action="account.password")
    assert (entry.actor, entry.detail) == ("alice", {})


def test_what_cannot_be_the_new_password_is_said_beside_its_field(alice: Any) -> None:
    client = _signed_in()
    for wrong, words in (
        ({"old": "wrong"}, "present password is not right"),
        ({"new": "short", "again": "short"}, "too short"),
        ({"again": "another-one-entirely"}, "not what you entered above"),
    ):
        answer = _change(client, **wrong)
        assert answer.status_code == 400
        assert words in answer.content.decode()
    alice.refresh_from_db()
    assert alice.check_password("alice-password-1")


def test_the_page_lists_sessions_and_ends_one(alice: Any) -> None:
    here, _there = _signed_in("Lynx"), _signed_in("w3m")
    page = here.get("/account/").content.decode()
    assert "Lynx" in page and "w3m" in page and "192.0.2.7" in page
    other = next(row for row in Session.objects.all() if row.agent == "w3m")
    assert other.session_key not in page
    assert here.post("/account/end-session/", {"name": other.name}).status_code == 302
    assert _there.get("/").status_code == 302
    assert here.get("/").status_code == 200


def test_nobody_ends_the_session_of_another(alice: Any, bob: Any) -> None:
    client = _signed_in()
    name = Session.objects.get().name
    other = Client()
    other.force_login(bob)
    assert other.post("/account/end-session/", {"name": name}).status_code == 404
    assert api_as(bob).delete(f"/api/v1/me/sessions/{name}/").status_code == 404
    assert client.get("/").status_code == 200


def test_the_api_lists_and_ends_sessions_and_changes_the_password(alice: Any) -> None:
    client = _signed_in()
    api = api_as(alice)
    (row,) = api.get("/api/v1/me/sessions/").json()
    assert (row["agent"], row["address"]) == ("Lynx", "192.0.2.7")
    assert api.delete(f"/api/v1/me/sessions/{row['name']}/").status_code == 204
    assert client.get("/").status_code == 302
    client = _signed_in()
    body = {"old": "alice-password-1", "new": NEW}
    assert api.post("/api/v1/me/password/", body, format="json").status_code == 204
    assert client.get("/").status_code == 302
    assert api.get("/api/v1/me/").status_code == 200, "tokens go on"
