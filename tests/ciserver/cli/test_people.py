"""Members, teams, users and one's own account by the command line."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from ciserver.accounts.models import User
from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_owner_gives_and_takes_roles(logged_in: Gantry, project: Any, charlie: Any) -> None:
    assert (
        "charlie is now viewer of hello"
        in logged_in("members", "set", "hello", "charlie", "viewer").out
    )
    shown = logged_in("members", "list", "hello").out
    assert re.search(r"charlie +viewer +in person", shown)
    assert logged_in("members", "remove", "hello", "charlie").exit_code == 0
    people = json.loads(logged_in("members", "list", "hello", "--json").out)["people"]
    assert [row["username"] for row in people] == ["alice", "bob"]
    refused = logged_in("members", "remove", "hello", "alice")
    assert refused.exit_code == 4
    assert "last owner" in refused.err


def test_an_administrator_makes_users_and_teams(
    logged_in: Gantry, project: Any, alice: Any
) -> None:
    assert logged_in("users", "list").exit_code == 3
    User.objects.filter(pk=alice.pk).update(is_superuser=True)
    made = logged_in("users", "new", "dora")
    assert re.fullmatch(r"http\S+/set-password/\S+\n", made.out)
    assert logged_in("teams", "new", "crew").exit_code == 0
    assert logged_in("teams", "add", "crew", "dora").exit_code == 0
    assert logged_in("members", "set", "hello", "crew", "developer", "--team").exit_code == 0
    assert "developer through crew" in logged_in("members", "list", "hello").out
    assert "dora" in logged_in("teams", "list").out
    assert logged_in("users", "disable", "dora").exit_code == 0
    assert "switched off" in logged_in("users", "list").out
    assert logged_in("users", "enable", "dora").exit_code == 0
    assert "set-password" in json.loads(logged_in("users", "reset", "dora", "--json").out)["link"]
    assert logged_in("users", "admin", "dora").exit_code == 0
    assert logged_in("teams", "remove", "crew", "dora").exit_code == 0
    assert logged_in("teams", "delete", "crew").exit_code == 0


def test_a_maintainer_names_promoters_and_approvers(
    logged_in: Gantry, history: Any, bob: Any
) -> None:
    logged_in("members", "set", "hello", "bob", "viewer")
    words = ["--promoter", "bob", "--promote-role", "owner", "--approver", "bob"]
    changed = logged_in("policy", "hello", "prod", *words, "--approvals", "1")
    assert changed.exit_code == 0
    assert "owner or more, bob" in changed.out
    shown = json.loads(logged_in("policy", "hello", "prod", "--json").out)
    assert (shown["promoters"], shown["approvers"], shown["approvals"]) == (["bob"], ["bob"], 1)
    refused = logged_in("policy", "hello", "prod", "--approver", "charlie")
    assert refused.exit_code == 4
    assert "is not a member" in refused.err
    assert logged_in("policy", "hello", "prod", "--promote-role", "king").exit_code == 2
    emptied = logged_in("policy", "hello", "prod", "--approver", "none", "--approvals", "0")
    assert emptied.exit_code == 0


def test_one_changes_ones_own_password_by_a_pipe(
    logged_in: Gantry, alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("alice-password-1\na-password-of-her-own\n"))
    assert logged_in("account", "password").exit_code == 0
    alice.refresh_from_db()
    assert alice.check_password("a-password-of-her-own")
    assert json.loads(logged_in("account", "sessions", "--json").out) == []
