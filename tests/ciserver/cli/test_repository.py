"""``gantry repository``: what is protected, shown and changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


def test_rules_are_changed_and_shown(logged_in: Gantry, history: Any) -> None:
    words = ["--protect-branch", "release/*", "--protect-tag", "v*", "--push-role", "owner"]
    assert "release/*" in logged_in("repository", "set", "hello", *words).out
    logged_in("repository", "set", "hello", "--protect-tag", "none")
    row = json.loads(logged_in("repository", "show", "hello", "--json").out)
    assert (row["protected_branches"], row["protected_tags"]) == (["release/*"], [])
    assert row["push_role"] == "owner"


def test_nothing_to_change_and_a_bad_pattern_are_told(logged_in: Gantry, history: Any) -> None:
    assert logged_in("repository", "set", "hello").exit_code == 2
    assert logged_in("repository", "set", "hello", "--protect-tag", "a b").exit_code == 4
