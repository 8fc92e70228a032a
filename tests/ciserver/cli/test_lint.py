"""gantry lint: what is wrong with a file before it is pushed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_mistake_is_told_by_file_line_and_key(logged_in: Any, tmp_path: Path) -> None:
    file = tmp_path / "gantry.yml"
    file.write_text("tests:\n  unit:\n    comand: x\n")
    ran = logged_in("lint", str(file))
    assert ran.exit_code == 1
    assert f"{file}:3: tests.unit.comand: there is no key 'comand'" in ran.out
    assert "did you mean 'command'?" in ran.out


def test_programs_get_every_mistake_as_json(logged_in: Any, tmp_path: Path) -> None:
    file = tmp_path / "gantry.yml"
    file.write_text("tests: {unit: {cpus: 0, memory: 1}}\n")
    faults = json.loads(logged_in("lint", "--json", str(file)).out)["faults"]
    assert [fault["path"] for fault in faults] == ["tests.unit.memory", "tests.unit.cpus"]


def test_the_manual_has_no_mistakes(logged_in: Any) -> None:
    manual = Path(__file__).resolve().parents[3] / "docs" / "gantry.yml"
    ran = logged_in("lint", str(manual))
    assert (ran.exit_code, ran.err) == (0, "")


def test_a_file_that_is_not_there_is_wrong_usage(logged_in: Any, tmp_path: Path) -> None:
    assert logged_in("lint", str(tmp_path / "none.yml")).exit_code == 2


def test_the_schema_is_public_and_is_the_file_in_docs(client: Any) -> None:
    answer = client.get("/api/v1/gantry.schema.json")
    assert answer.status_code == 200
    kept = Path(__file__).resolve().parents[3] / "docs" / "gantry.schema.json"
    assert answer.json() == json.loads(kept.read_text())


def test_a_compose_file_for_tests_is_checked_as_one(
    logged_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("compose.test.yml")
    file.write_text("services:\n  sut:\n    build: .\n    comand: pytest\n")
    ran = logged_in("lint")
    assert ran.exit_code == 1
    assert ran.out.startswith("compose.test.yml:4: services.sut.comand: ")
    assert "Did you mean 'command'?" in ran.out
    file.write_text("services: {sut: {build: ., command: pytest, ports: ['80']}}\n")
    ran = logged_in("lint")
    assert ran.exit_code == 0, ran.err
    assert "compose.test.yml: no mistakes." in ran.out
    assert "ports" in ran.out
    [notice] = json.loads(logged_in("lint", "--json").out)["notices"]
    assert notice.startswith("compose.test.yml: ")
    file.write_text("services: {\n")
    assert logged_in("lint", "compose.test.yml").exit_code == 1
    Path("gantry.yml").write_text("images: 7\n")
    assert logged_in("lint").out.startswith("gantry.yml:1: images")
