"""Tokens of people, and the audit log."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from rest_framework.test import APIClient

from ciserver.accounts.models import AuditEntry, Scope, Token
from tests.conftest import api_as


def test_a_tokens_text_is_not_kept(alice: Any) -> None:
    token, text = Token.make(user=alice, name="laptop", scope=Scope.READ)
    assert text not in str(token.__dict__)
    assert Token.objects.find(text) == token


def test_an_expired_token_and_one_of_an_inactive_user_are_not_found(alice: Any) -> None:
    _token, text = Token.make(user=alice, name="old", scope=Scope.READ)
    Token.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert Token.objects.find(text) is None
    Token.objects.update(expires_at=None)
    alice.is_active = False
    alice.save()
    assert Token.objects.find(text) is None


def test_the_api_says_who_the_caller_is(api: Any) -> None:
    assert api.get("/api/v1/me/").json()["username"] == "alice"


def test_without_a_token_the_api_asks_for_one(db: None) -> None:
    response = APIClient().get("/api/v1/me/")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert response.headers["Content-Type"] == "application/problem+json"


def test_an_unknown_token_is_refused_with_the_next_step(db: None) -> None:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION="Bearer gantry_wrong")
    response = client.get("/api/v1/me/")
    assert response.status_code == 401
    assert "Make a new one on the page /tokens/" in response.json()["detail"]


def test_a_read_token_may_not_write(alice: Any) -> None:
    response = api_as(alice, "read").post("/api/v1/projects/", {"slug": "x"}, format="json")
    assert response.status_code == 403
    assert "may only read" in response.json()["detail"]


def test_the_audit_log_shows_where_it_was_changed(db: None) -> None:
    for number in range(3):
        AuditEntry.record(actor="alice", action="test", target=str(number))
    assert AuditEntry.broken_at() is None
    call_command("verify_audit")
    changed = AuditEntry.objects.order_by("id")[1]
    AuditEntry.objects.filter(pk=changed.pk).update(actor="mallory")
    assert AuditEntry.broken_at() == changed.at
    with pytest.raises(CommandError, match="does not fit the one before it"):
        call_command("verify_audit")


def test_the_api_shows_a_tokens_text_once(api: Any, alice: Any) -> None:
    made = api.post("/api/v1/tokens/", {"name": "laptop", "scope": "write"}, format="json")
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    assert Token.objects.find(made.json()["token"]) == alice.tokens.get(name="laptop")
    again = api.get(f"/api/v1/tokens/{made.json()['id']}/").json()
    assert "token" not in again
    assert made.json()["token"].startswith(again["hint"])


def test_nobody_sees_or_ends_the_tokens_of_others(api: Any, bob: Any) -> None:
    token, _ = Token.make(user=bob, name="bobs", scope=Scope.READ)
    assert "bobs" not in {row["name"] for row in api.get("/api/v1/tokens/").json()["results"]}
    assert api.delete(f"/api/v1/tokens/{token.pk}/").status_code == 404
    assert Token.objects.filter(pk=token.pk).exists()


def test_a_token_makes_none_that_outlives_it(alice: Any) -> None:
    api = api_as(alice, "write")
    alice.tokens.update(expires_at=timezone.now() + timedelta(days=10))
    for days in (11, None):
        refused = api.post("/api/v1/tokens/", {"name": "x", "days": days}, format="json")
        assert refused.status_code == 409
        assert refused.json()["code"] == "token-outlives-maker"
    assert api.post("/api/v1/tokens/", {"name": "x", "days": 9}, format="json").status_code == 201


def test_without_a_lifetime_a_token_ends_in_90_days_or_with_the_one_that_makes_it(
    alice: Any,
) -> None:
    api = api_as(alice, "write")
    made = api.post("/api/v1/tokens/", {"name": "x"}, format="json").json()
    left = datetime.fromisoformat(made["expires_at"]) - timezone.now()
    assert timedelta(days=89) < left <= timedelta(days=90)
    ends = timezone.now() + timedelta(days=30)
    alice.tokens.update(expires_at=ends)
    made = api.post("/api/v1/tokens/", {"name": "y"}, format="json")
    assert made.status_code == 201
    assert ends - timedelta(minutes=1) < datetime.fromisoformat(made.json()["expires_at"]) <= ends


@pytest.mark.parametrize(
    "body", [{}, {"name": ""}, {"name": "x", "scope": "root"}, {"name": "x", "days": 0}]
)
def test_a_token_of_the_wrong_shape_is_refused(api: Any, body: dict[str, Any]) -> None:
    assert api.post("/api/v1/tokens/", body, format="json").status_code == 400
