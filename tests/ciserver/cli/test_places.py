"""env and audit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


def test_variables_are_set_and_taken_away(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("env", "hello", "prod", "--set", "A=1=2", "--set", "EMPTY=")
    assert ran.exit_code == 0, ran.err
    assert "$A" in ran.out
    told = json.loads(logged_in("env", "hello", "prod", "--unset", "EMPTY", "--json").out)
    assert told["variables"] == {"A": "1=2"}
    assert history.environments.get(name="prod").variables == {"A": "1=2"}


def test_what_cannot_be_set_is_refused(logged_in: Gantry, history: Any) -> None:
    assert logged_in("env", "hello", "prod", "--set", "A").exit_code == 2
    ran = logged_in("env", "hello", "prod", "--set", "A B=1")
    assert ran.exit_code == 4
    assert "cannot be a variable" in ran.err
    assert logged_in("env", "hello", "moon").exit_code == 4


def test_domains_come_and_go(logged_in: Gantry, history: Any) -> None:
    assert "has no domains" in logged_in("domains", "hello", "prod").out
    ran = logged_in("domains", "hello", "prod", "--add", "A.example", "--add", "b.example")
    assert ran.exit_code == 0, ran.err
    assert "a.example" in ran.out
    words = ["--remove", "a.example", "--https", "internal", "--json"]
    told = json.loads(logged_in("domains", "hello", "prod", *words).out)
    assert told == {"domains": ["b.example"], "https": "internal"}
    refused = logged_in("domains", "hello", "qa", "--add", "b.example")
    assert refused.exit_code == 4
    assert "is a domain of hello@prod already" in refused.err
    assert logged_in("domains", "hello", "prod", "--https", "yes").exit_code == 4


def test_the_audit_tells_who_did_it(logged_in: Gantry, history: Any) -> None:
    logged_in("env", "hello", "prod", "--set", "A=1")
    ran = logged_in("audit", "hello")
    assert ran.exit_code == 0, ran.err
    assert "environment.change" in ran.out
    assert 'variables=[{}, {"A": "1"}]' in ran.out
    assert json.loads(logged_in("audit", "--json").out)[0]["actor"] == "alice"
    for words, found in (
        (["--actor", "alice", "--action", "environment.change"], 1),
        (["--action", "environment.delete"], 0),
        (["--actor", "bob"], 0),
    ):
        assert len(json.loads(logged_in("audit", *words, "--json").out)) == found
