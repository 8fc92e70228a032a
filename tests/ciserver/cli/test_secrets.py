"""``gantry secrets``: a value goes in by a file or a pipe, and does not come out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from ciserver.projects.models import ProjectSecret
from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_secret_is_set_listed_and_removed(
    logged_in: Gantry, history: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hunter2-hunter2\n"))
    assert logged_in("secrets", "set", "hello", "TOKEN").exit_code == 0
    assert ProjectSecret.objects.get().value().reveal() == "hunter2-hunter2"
    (tmp_path / "key").write_text("a\nkey\nof lines\n")
    assert logged_in("secrets", "set", "hello", "KEY", "--file", str(tmp_path / "key")).err == ""
    listed = logged_in("secrets", "list", "hello", "--json").out
    assert [row["name"] for row in json.loads(listed)] == ["KEY", "TOKEN"]
    assert "hunter2" not in listed
    assert logged_in("secrets", "remove", "hello", "KEY").exit_code == 0
    assert logged_in("secrets", "remove", "hello", "KEY").exit_code == 4
    assert "TOKEN" in logged_in("secrets", "list", "hello").out
