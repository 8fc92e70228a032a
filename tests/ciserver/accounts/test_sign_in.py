"""Tricks with signing in: whose session it is, where one is sent, and forms from elsewhere (P5)."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from ciserver.accounts import users
from ciserver.accounts.models import Scope, Session, Token, User

FORM = {"username": "alice", "password": "alice-password-1"}
FORMS = [
    "/account/",
    "/account/end-session/",
    "/users/",
    "/users/alice/change/",
    "/teams/",
    "/teams/crew/change/",
    "/projects/hello/members/",
    "/projects/hello/members/remove/",
    "/tokens/",
    "/login/",
    "/logout/",
]


@pytest.mark.parametrize("url", FORMS)
def test_a_form_from_elsewhere_is_refused(project: Any, alice: Any, url: str) -> None:
    User.objects.filter(pk=alice.pk).update(is_superuser=True)
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    assert client.post(url, {"do": "disable", "name": "bob"}).status_code == 403


def test_the_api_takes_a_session_only_with_its_token_against_forgery(alice: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    body = {"old": "alice-password-1", "new": "a-password-of-her-own"}
    answer = client.post("/api/v1/me/password/", body, content_type="application/json")
    assert answer.status_code == 403
    alice.refresh_from_db()
    assert alice.check_password("alice-password-1")


def test_a_session_that_somebody_prepared_is_not_the_one_signed_in_to(alice: Any) -> None:
    client = Client()
    client.cookies[settings.SESSION_COOKIE_NAME] = "a" * 32
    client.post("/login/", FORM)
    assert client.cookies[settings.SESSION_COOKIE_NAME].value != "a" * 32
    assert not Session.objects.filter(session_key="a" * 32).exists()


@pytest.mark.parametrize(
    "place",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "///x"],
)
def test_nobody_is_sent_elsewhere_after_signing_in(alice: Any, place: str) -> None:
    answer = Client().post("/login/", FORM | {"next": place})
    assert answer["Location"] == "/"


def test_signing_out_ends_the_session_on_the_server(alice: Any) -> None:
    client = Client()
    client.post("/login/", FORM)
    stolen = client.cookies[settings.SESSION_COOKIE_NAME].value
    client.post("/logout/")
    thief = Client()
    thief.cookies[settings.SESSION_COOKIE_NAME] = stolen
    assert thief.get("/account/").status_code == 302


def test_the_cookie_is_for_the_server_alone(alice: Any) -> None:
    cookie = Client().post("/login/", FORM).cookies[settings.SESSION_COOKIE_NAME]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"


@pytest.mark.parametrize("change", ["other user", "other token", "empty"])
def test_a_link_for_another_or_a_made_up_one_sets_nothing(
    alice: Any, bob: Any, change: str
) -> None:
    root = User.objects.create_superuser("root")
    uid, token = users.reset_password(user=alice, by=root).rstrip("/").rsplit("/", 2)[1:]
    other_uid = users.reset_password(user=bob, by=root).rstrip("/").rsplit("/", 2)[1]
    uid, token = {
        "other user": (other_uid, token),
        "other token": (uid, token[:-1] + ("a" if token[-1] != "a" else "b")),
        "empty": (uid, "set-password"),
    }[change]
    client = Client()
    new = {"new_password1": "a-password-of-evil", "new_password2": "a-password-of-evil"}
    for method in (client.get, client.post):
        page = method(f"/set-password/{uid}/{token}/", new, follow=True)
        assert "has been used" in page.content.decode()
    for user in (alice, bob):
        user.refresh_from_db()
        assert not user.has_usable_password()


def test_a_read_token_of_an_administrator_changes_no_user(alice: Any) -> None:
    User.objects.filter(pk=alice.pk).update(is_superuser=True)
    _, text = Token.make(user=alice, name="look", scope=Scope.READ)
    answer = Client().post(
        "/api/v1/users/",
        {"username": "dora"},
        content_type="application/json",
        headers={"Authorization": f"Bearer {text}"},
    )
    assert answer.status_code == 403
    assert not User.objects.filter(username="dora").exists()
