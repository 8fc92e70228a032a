"""``gantry hook-secret``: shown once, renewed, and the old one ended."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ciserver.projects.models import Project
from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


def counting() -> list[str]:
    return [secret.reveal() for secret in Project.objects.get(slug="hello").hook_secrets]


def test_a_secret_is_made_shown_once_renewed_and_the_old_one_ended(
    logged_in: Gantry, history: Any
) -> None:
    assert "every webhook is refused" in logged_in("hook-secret", "show", "hello").out
    first = logged_in("hook-secret", "renew", "hello").out.split("\n")[0]
    assert counting() == [first]
    row = json.loads(logged_in("hook-secret", "show", "hello", "--json").out)
    assert (row["set"], row["old_until"]) == (True, None)
    assert row["address"].endswith("/hooks/FORGE/hello/")

    second = json.loads(logged_in("hook-secret", "renew", "hello", "--json").out)["secret"]
    assert counting() == [second, first]
    shown = logged_in("hook-secret", "show", "hello").out
    assert "counts until" in shown
    assert first not in shown
    assert second not in shown

    assert logged_in("hook-secret", "end-old", "hello").exit_code == 0
    assert counting() == [second]
    again = logged_in("hook-secret", "end-old", "hello")
    assert again.exit_code == 4
    assert "no earlier webhook secret" in again.err


def test_one_that_leaked_ends_at_once_and_one_that_the_forge_made_is_read_from_a_file(
    logged_in: Gantry, history: Any, tmp_path: Path
) -> None:
    logged_in("hook-secret", "renew", "hello")
    (tmp_path / "made").write_text("made-by-the-forge-itself\n")
    words = ("--file", str(tmp_path / "made"), "--drop-old")
    assert logged_in("hook-secret", "renew", "hello", *words).exit_code == 0
    assert counting() == ["made-by-the-forge-itself"]


def test_a_webhook_to_oneself_goes_the_whole_way(
    logged_in: Gantry, history: Any, live_server: Any, settings: Any
) -> None:
    settings.GANTRY = dataclasses.replace(settings.GANTRY, url=live_server.url)
    refused = logged_in("hook-secret", "test", "hello")
    assert (refused.exit_code, "Make one" in refused.err) == (4, True)
    logged_in("hook-secret", "renew", "hello")
    sent = logged_in("hook-secret", "test", "hello")
    assert (sent.exit_code, "answered 200" in " ".join(sent.out.split())) == (0, True), sent
    assert json.loads(logged_in("hook-secret", "test", "hello", "--json").out)["good"] is True

    settings.GANTRY = dataclasses.replace(settings.GANTRY, url="http://127.0.0.1:1")
    away = logged_in("hook-secret", "test", "hello")
    assert away.exit_code == 1
    assert "Nothing answers at http://127.0.0.1:1/hooks/generic/hello/" in " ".join(
        away.err.split()
    )
