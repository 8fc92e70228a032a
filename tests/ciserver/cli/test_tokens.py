"""Tokens by the command line: made, used, listed, ended."""

from __future__ import annotations

import json

import pytest

from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_new_token_is_printed_alone_and_works(
    logged_in: Gantry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = logged_in("tokens", "new", "deploy script", "--days", "7")
    assert made.exit_code == 0
    assert made.out.startswith("gantry_")
    assert len(made.out.splitlines()) == 1
    monkeypatch.setenv("GANTRY_TOKEN", made.out.strip())
    assert json.loads(logged_in("whoami", "--json").out)["username"] == "alice"
    refused = logged_in("tokens", "new", "another")
    assert refused.exit_code == 3
    assert "may only read" in refused.err


def test_a_revoked_token_is_gone_from_the_list(logged_in: Gantry) -> None:
    row = json.loads(logged_in("tokens", "new", "old", "--json").out)
    assert "old" in logged_in("tokens", "list").out
    ended = logged_in("tokens", "revoke", str(row["id"]))
    assert "no longer works" in ended.out
    assert [row["name"] for row in json.loads(logged_in("tokens", "list", "--json").out)] == [
        "client"
    ]
    assert logged_in("tokens", "revoke", str(row["id"])).exit_code == 4
