"""``gantry hook-secret``: shown once, renewed, and the old one ended."""

from __future__ import annotations

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
