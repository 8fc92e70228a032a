"""Logging in, and every way of not being able to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


def test_login_keeps_address_and_token_for_the_other_commands(
    gantry: Gantry, live_server: Any, token: str, tmp_path: Path
) -> None:
    ran = gantry("login", live_server.url, "--token", token)
    assert ran.exit_code == 0
    assert f"Logged in to {live_server.url} as alice" in ran.out
    kept = tmp_path / "gantry" / "client.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    me = json.loads(gantry("whoami", "--json").out)
    assert (me["url"], me["username"]) == (live_server.url, "alice")


def test_a_wrong_token_is_not_kept(gantry: Gantry, live_server: Any, tmp_path: Path) -> None:
    ran = gantry("login", live_server.url, "--token", "gantry_wrong")
    assert ran.exit_code == 3
    assert "This token is unknown or has expired." in ran.err
    assert not (tmp_path / "gantry" / "client.json").exists()


def test_without_a_login_the_next_step_is_told(gantry: Gantry) -> None:
    ran = gantry("status")
    assert ran.exit_code == 3
    assert ran.err.splitlines()[0] == "gantry: You are not logged in."
    assert "gantry login URL" in ran.err


def test_a_service_that_is_away_is_exit_code_5(
    gantry: Gantry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANTRY_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GANTRY_TOKEN", "gantry_any")
    ran = gantry("status")
    assert ran.exit_code == 5
    assert "http://127.0.0.1:9 cannot be reached" in ran.err


def test_wrong_words_are_exit_code_2(gantry: Gantry) -> None:
    assert gantry("promot").exit_code == 2


def test_help_lists_every_command_and_the_exit_codes_in_one_view(gantry: Gantry) -> None:
    ran = gantry("--help")
    assert ran.exit_code == 0
    for word in ("demo", "up", "test", "admin", "base", "login", "status", "logs", "promote"):
        assert f" {word} " in ran.out
    assert "Exit codes:" in ran.out
    assert len(ran.out.splitlines()) < 105


def test_every_command_has_a_json_form(gantry: Gantry) -> None:
    for word in ("status", "projects", "pipelines", "logs", "releases", "new", "promote"):
        assert "--json" in gantry(word, "--help").out, word


@pytest.mark.parametrize("url", ["ci.example", "ftp://ci.example", "http://", "http://[::1"])
def test_what_is_no_address_is_refused_with_an_example(gantry: Gantry, url: str) -> None:
    ran = gantry("login", url, "--token", "gantry_any")
    assert ran.exit_code == 2
    assert f"{url!r} is not an address." in ran.err
    assert "gantry login https://ci.example" in ran.err


def test_with_json_what_went_wrong_is_an_object_with_its_code(
    gantry: Gantry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complaint(*words: str) -> tuple[int, str, str, str]:
        ran = gantry(*words)
        told = json.loads(ran.err.splitlines()[-1])
        assert (ran.out, told["exit_code"]) == ("", ran.exit_code)
        return ran.exit_code, told["code"], told["detail"], told["hint"]

    assert complaint("status", "--json")[:3] == (3, "not-allowed", "You are not logged in.")
    monkeypatch.setenv("GANTRY_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GANTRY_TOKEN", "gantry_any")
    assert complaint("status", "--json")[:2] == (5, "unreachable")
    code, name, detail, hint = complaint("logs", "--json")
    assert (code, name, detail) == (2, "usage", "Missing argument 'project'.")
    assert "--help" in hint
    assert complaint("promot", "--json")[:2] == (2, "usage")
    assert not gantry("exec", "shop@qa", "--", "x", "--json").err.startswith("{")


@pytest.mark.django_db(transaction=True)
def test_its_code_is_that_of_the_api(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("promote", "hello", "v1", "moon", "--json")
    told = json.loads(ran.err)
    assert (ran.exit_code, told["code"]) == (4, "environment.unknown")
    assert told["hint"] == "It has: qa, prod."
    ran = logged_in("logs", "hello", "2", "--json")
    assert (ran.exit_code, json.loads(ran.err)["code"]) == (1, "bad-result")
    assert json.loads(ran.out)
    assert logged_in("logs", "hello", "1", "--json").exit_code == 0
