"""Who guesses passwords has to wait; who knows theirs, elsewhere, does not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from ciserver.accounts import lock
from ciserver.accounts.models import AuditEntry, SignInFailure
from tests.conftest import api_as


def _try(name: str, password: str, address: str = "192.0.2.1") -> int:
    form = {"username": name, "password": password}
    return Client(REMOTE_ADDR=address).post("/login/", form).status_code


def test_ten_wrong_passwords_lock_the_name_for_that_address(alice: Any) -> None:
    for _ in range(lock.OF_BOTH):
        assert _try("alice", "wrong") == 200
    assert _try("alice", "alice-password-1") == 429
    assert _try("ALICE", "alice-password-1") == 429
    assert _try("alice", "alice-password-1", "192.0.2.2") == 302
    entry = AuditEntry.objects.get(action="account.lock")
    assert (entry.target, entry.detail) == ("alice", {"address": "192.0.2.1"})


def test_the_refusal_says_how_long_and_does_not_look_at_the_password(alice: Any) -> None:
    for _ in range(lock.OF_BOTH):
        _try("alice", "wrong")
    form = {"username": "alice", "password": "alice-password-1"}
    answer = Client(REMOTE_ADDR="192.0.2.1").post("/login/", form)
    assert "Try again in 15 min" in answer.content.decode()
    SignInFailure.objects.update(at=timezone.now() - lock.WINDOW - timedelta(seconds=1))
    assert _try("alice", "alice-password-1") == 302


def test_a_name_that_nobody_has_is_locked_just_the_same(db: None) -> None:
    for _ in range(lock.OF_BOTH):
        assert _try("nobody-at-all", "wrong") == 200
    assert _try("nobody-at-all", "wrong") == 429


def test_one_address_cannot_go_through_many_names(
    alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "OF_ADDRESS", 12)
    for number in range(12):
        _try(f"user{number}", "wrong")
    assert _try("alice", "alice-password-1") == 429
    assert _try("alice", "alice-password-1", "192.0.2.2") == 302


def test_one_name_cannot_be_guessed_from_many_addresses(
    alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "OF_NAME", 12)
    for number in range(12):
        _try("alice", "wrong", f"192.0.2.{number}")
    assert _try("alice", "alice-password-1", "198.51.100.1") == 429


def test_a_right_password_clears_the_wrong_ones_before_it(alice: Any) -> None:
    for _ in range(3):
        for _ in range(lock.OF_BOTH - 1):
            _try("alice", "wrong")
        assert _try("alice", "alice-password-1") == 302


def test_addresses_of_one_ipv6_line_are_one(alice: Any) -> None:
    for number in range(lock.OF_BOTH):
        _try("alice", "wrong", f"2001:db8::{number:x}")
    assert _try("alice", "alice-password-1", "2001:db8::ffff") == 429
    assert _try("alice", "alice-password-1", "2001:db8:0:1::1") == 302


def test_changing_the_password_is_no_way_around_the_lock(alice: Any) -> None:
    api = api_as(alice)
    body = {"old": "wrong", "new": "a-password-of-her-own"}
    for _ in range(lock.OF_BOTH):
        assert api.post("/api/v1/me/password/", body, format="json").status_code == 400
    locked = api.post("/api/v1/me/password/", body | {"old": "alice-password-1"}, format="json")
    assert locked.status_code == 429
    assert locked.json()["code"] == "account.locked"


def test_old_guesses_are_forgotten(alice: Any) -> None:
    _try("alice", "wrong")
    SignInFailure.objects.update(at=timezone.now() - timedelta(hours=1))
    lock.forget_old()
    assert SignInFailure.objects.count() == 0
