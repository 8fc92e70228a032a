"""Who signed in and out, and who tried, is in the audit log; who guesses cannot fill it."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from ciserver.accounts import lock
from ciserver.accounts.models import AuditEntry, SignInFailure
from tests.conftest import api_as

HERE = "192.0.2.1"
RIGHT = "alice-password-1"


def _try(name: str, password: str, address: str = HERE) -> Client:
    client = Client(REMOTE_ADDR=address)
    client.post("/login/", {"username": name, "password": password})
    return client


def _told() -> list[tuple[str, str, str, dict[str, Any]]]:
    rows = AuditEntry.objects.filter(action__startswith="account.").order_by("id")
    return list(rows.values_list("actor", "action", "target", "detail"))


def test_signing_in_and_out_is_written_down_with_the_address(alice: Any) -> None:
    client = _try("alice", RIGHT)
    client.post("/logout/")
    client.post("/logout/")  # by nobody: says nothing
    assert _told() == [
        ("alice", "account.sign-in", "alice", {"address": HERE, "wrong_before": 0}),
        ("alice", "account.sign-out", "alice", {"address": HERE}),
    ]


def test_of_wrong_passwords_the_first_and_the_one_that_locks_are_written_down(alice: Any) -> None:
    for _ in range(lock.OF_BOTH + 5):
        _try("ALICE", "a-wrong-one")
    assert _told() == [
        ("sign-in", "account.sign-in-failed", "alice", {"address": HERE, "through": "page"}),
        ("sign-in", "account.lock", "alice", {"address": HERE}),
    ]


def test_who_got_it_right_at_last_is_written_down_with_how_many_were_wrong(alice: Any) -> None:
    for _ in range(3):
        _try("alice", "a-wrong-one")
    _try("alice", RIGHT)
    actions = [action for _, action, _, _ in _told()]
    assert actions == ["account.sign-in-failed", "account.sign-in"]
    assert _told()[-1][3]["wrong_before"] == 3


def test_neither_a_password_nor_a_name_that_nobody_has_is_written_down(alice: Any) -> None:
    """People type the one where the other belongs."""
    for _ in range(lock.OF_BOTH):
        _try(RIGHT, "hunter2-hunter2")
    _try("alice", "hunter2-hunter2")
    assert [target for _, _, target, _ in _told()] == [lock.UNKNOWN, lock.UNKNOWN, "alice"]
    written = str(list(AuditEntry.objects.values()))
    assert RIGHT not in written
    assert "hunter2" not in written


def test_a_password_guessed_over_the_api_is_written_down_as_one_of_the_page_is(alice: Any) -> None:
    body = {"old": "a-wrong-one", "new": "a-password-of-her-own"}
    api_as(alice).post("/api/v1/me/password/", body, format="json")
    [(actor, action, target, detail)] = _told()
    assert (actor, action, target) == ("sign-in", "account.sign-in-failed", "alice")
    assert detail["through"] == "change of password"


def test_names_that_nobody_has_cannot_fill_the_audit_log(
    alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither from one address nor from many."""
    monkeypatch.setattr(lock, "TOLD_OF_ADDRESS", 3)
    monkeypatch.setattr(lock, "TOLD", 12)
    for number in range(8):
        _guess(f"somebody{number}", HERE)
    assert len(_told()) == 3
    for number in range(40):
        _guess(f"anybody{number}", f"198.51.100.{number}")
    told = _told()
    assert len(told) == 3 + 3 + 1
    assert told[-1][2] == lock.MANY
    # Not even by locking names, of which somebody's own is still told of.
    for name in ("nobody", "alice"):
        for _ in range(lock.OF_BOTH):
            _guess(name, "203.0.113.9")
    assert [target for _, _, target, _ in _told()[len(told) :]] == ["alice"]


def test_of_guesses_at_the_same_moment_the_first_is_told_of_once(alice: Any) -> None:
    guesses = [lock.begin("alice", HERE) for _ in range(3)]
    for guess in reversed(guesses):
        lock.failed(guess, through="page")
    assert len(_told()) == 1
    assert SignInFailure.objects.count() == 3


def _guess(name: str, address: str) -> None:
    lock.failed(lock.begin(name, address), through="page")
