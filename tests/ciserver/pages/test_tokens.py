"""One's own tokens: made once, shown once, ended at once."""

from __future__ import annotations

import re
from typing import Any

from django.test import Client

from ciserver.accounts.models import AuditEntry, Token
from tests.conftest import api_as

FORM = {"name": "laptop", "scope": "write", "days": "90"}


def test_a_token_is_shown_once_and_works(alice: Any, sign_in: Any) -> None:
    client = sign_in(alice)
    answer = client.post("/tokens/", FORM)
    assert answer["Cache-Control"] == "no-store"
    found = re.search(r'data-copy="(gantry_[^"]+)"', answer.content.decode())
    assert found
    me = Client().get("/api/v1/me/", headers={"Authorization": f"Bearer {found[1]}"})
    assert me.json()["username"] == "alice"
    assert found[1] not in client.get("/tokens/").content.decode()
    entry = AuditEntry.objects.first()
    assert entry is not None
    assert (entry.actor, entry.action) == ("alice", "token.make")
    assert found[1] not in str(entry.detail) + entry.target


def test_a_token_ends_when_it_was_said_to(alice: Any, sign_in: Any) -> None:
    sign_in(alice).post("/tokens/", FORM)
    sign_in(alice).post("/tokens/", FORM | {"days": "0"})
    never, later = Token.objects.order_by("-pk")
    assert never.expires_at is None
    assert (later.expires_at - later.created_at).days in {89, 90}


def test_a_revoked_token_no_longer_works(alice: Any, sign_in: Any) -> None:
    api = api_as(alice)
    assert api.get("/api/v1/me/").status_code == 200
    answer = sign_in(alice).post(f"/tokens/{Token.objects.get().pk}/revoke/", follow=True)
    assert "no longer works" in answer.content.decode()
    assert api.get("/api/v1/me/").status_code == 401


def test_nobody_sees_or_ends_the_token_of_another(alice: Any, charlie: Any, sign_in: Any) -> None:
    api_as(alice)
    token = Token.objects.get()
    client = sign_in(charlie)
    assert token.hint not in client.get("/tokens/").content.decode()
    assert client.post(f"/tokens/{token.pk}/revoke/").status_code == 404
    assert Token.objects.count() == 1


def test_a_token_without_a_name_or_of_a_made_up_scope_is_refused(alice: Any, sign_in: Any) -> None:
    client = sign_in(alice)
    for wrong in ({"name": ""}, {"scope": "root"}, {"days": "100000"}, {"days": "x"}):
        answer = client.post("/tokens/", FORM | wrong)
        assert answer.status_code == 400
        assert "form-error" in answer.content.decode()
    assert Token.objects.count() == 0
