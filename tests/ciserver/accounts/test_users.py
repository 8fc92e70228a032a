"""Administrators make users and end them; nobody but its owner knows a password."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from ciserver.accounts import users
from ciserver.accounts.models import AuditEntry, Scope, Token, User
from ciserver.lib.problems import Refused
from tests.conftest import api_as

NEW = "a-password-of-her-own"


@pytest.fixture
def root(db: None) -> Any:
    return User.objects.create_superuser("root", password="root-password-1")


def _signed_in(name: str, password: str) -> Client:
    client = Client()
    assert client.post("/login/", {"username": name, "password": password}).status_code == 302
    return client


def _set(link: str, password: str = NEW) -> Any:
    """Open the link and send its form, as a browser does."""
    client = Client()
    path = re.sub(r"^https?://[^/]+", "", link)
    page = client.get(path, follow=True)
    if not page.redirect_chain:
        return page
    here = page.redirect_chain[-1][0]
    return client.post(here, {"new_password1": password, "new_password2": password})


def test_a_new_user_sets_the_password_by_a_link_that_works_once(root: Any) -> None:
    made = api_as(root).post("/api/v1/users/", {"username": "dora"}, format="json")
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    link = made.json()["link"]
    assert _set(link)["Location"] == "/login/"
    _signed_in("dora", NEW)
    again = _set(link, "another-password-1")
    assert "has been used" in again.content.decode()
    assert User.objects.get(username="dora").check_password(NEW)
    assert link.rsplit("/", 2)[1] not in str(list(AuditEntry.objects.values()))


def test_a_weak_password_is_refused_and_the_link_goes_on_working(root: Any) -> None:
    _, link = users.create(by=root, username="dora")
    assert b"form-error" in _set(link, "short").content
    assert _set(link)["Location"] == "/login/"


def test_the_page_shows_the_link_once(root: Any) -> None:
    client = Client()
    client.force_login(root)
    answer = client.post("/users/", {"username": "dora"})
    assert answer["Cache-Control"] == "no-store"
    found = re.search(r'data-copy="([^"]+/set-password/[^"]+)"', answer.content.decode())
    assert found
    assert found[1] not in client.get("/users/").content.decode()
    assert _set(found[1])["Location"] == "/login/"


def test_who_is_switched_off_is_out_at_once_and_stays_out_when_switched_on(
    root: Any, alice: Any
) -> None:
    browser = _signed_in("alice", "alice-password-1")
    program = api_as(alice)
    assert program.get("/api/v1/me/").status_code == 200
    admin = api_as(root)
    answer = admin.patch("/api/v1/users/alice/", {"is_active": False}, format="json")
    assert answer.json()["is_active"] is False
    assert browser.get("/").status_code == 302
    assert program.get("/api/v1/me/").status_code == 401
    admin.patch("/api/v1/users/alice/", {"is_active": True}, format="json")
    assert browser.get("/").status_code == 302
    assert program.get("/api/v1/me/").status_code == 401
    _signed_in("alice", "alice-password-1")


def test_who_is_switched_off_has_no_role_any_more(project: Any, alice: Any, root: Any) -> None:
    from ciserver.projects.models import Role

    alice = users.disable(user=alice, by=root)
    assert not project.allows(alice, Role.VIEWER)


def test_a_reset_ends_password_sessions_and_earlier_links(root: Any, alice: Any) -> None:
    browser = _signed_in("alice", "alice-password-1")
    Token.make(user=alice, name="laptop", scope=Scope.READ)
    first = users.reset_password(user=alice, by=root)
    assert browser.get("/").status_code == 302
    assert (
        Client().post("/login/", {"username": "alice", "password": "alice-password-1"}).status_code
        == 200
    )
    assert alice.tokens.count() == 1
    second = users.reset_password(user=alice, by=root, end_tokens=True)
    assert alice.tokens.count() == 0
    assert "has been used" in _set(first).content.decode()
    assert _set(second)["Location"] == "/login/"


def test_the_last_administrator_stays_one(root: Any, alice: Any) -> None:
    admin = api_as(root)
    for change in ({"is_superuser": False}, {"is_active": False}):
        refused = admin.patch("/api/v1/users/root/", change, format="json")
        assert refused.status_code == 409
        assert refused.json()["code"] == "user.last-admin"
    assert admin.patch("/api/v1/users/alice/", {"is_superuser": True}, format="json").json()[
        "is_superuser"
    ]
    answer = admin.patch("/api/v1/users/root/", {"is_superuser": False}, format="json")
    assert answer.status_code == 200


@pytest.mark.parametrize("name", ["", "gantry", "Console", "a b", "-x", "a/b", "ALICE", "x" * 64])
def test_a_name_that_is_unfit_taken_or_the_services_own_is_refused(
    root: Any, alice: Any, name: str
) -> None:
    assert api_as(root).post("/api/v1/users/", {"username": name}, format="json").status_code in {
        400,
        409,
    }


def test_everything_that_is_done_to_a_user_is_written_down(root: Any, alice: Any) -> None:
    users.create(by=root, username="dora", email="dora@example.org")
    users.set_admin(user=alice, by=root, admin=True)
    users.disable(user=alice, by=root)
    users.enable(user=alice, by=root)
    users.reset_password(user=alice, by=root)
    done = list(AuditEntry.objects.order_by("id").values_list("actor", "action", "target"))
    assert done == [
        ("root", "user.create", "dora"),
        ("root", "user.admin", "alice"),
        ("root", "user.disable", "alice"),
        ("root", "user.enable", "alice"),
        ("root", "user.reset-password", "alice"),
    ]


def test_the_services_refuse_who_is_no_administrator(alice: Any, bob: Any) -> None:
    for deed in (users.disable, users.enable, users.reset_password):
        with pytest.raises(Refused, match="for administrators"):
            deed(user=bob, by=alice)
    with pytest.raises(Refused, match="for administrators"):
        users.create(by=alice, username="dora", admin=True)
