"""The rules that tools check: imports go one way, types fit, the style is one style."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent

CHECKS = {
    "imports go one way": ["lint-imports"],
    "the linter is content": ["ruff", "check", "."],
    "the formatter would change nothing": ["ruff", "format", "--check", "."],
}


@pytest.mark.parametrize("words", CHECKS.values(), ids=CHECKS.keys())
def test_contract(words: list[str]) -> None:
    run(words)


@pytest.mark.timeout(600)
def test_types_fit() -> None:
    """mypy in its strict mode; its cache makes a second run quick."""
    run(["mypy"], GANTRY_SECRET_KEY="not used: types only")


def test_no_migration_is_missing() -> None:
    run(["python", "manage.py", "makemigrations", "--check", "--dry-run"])


def test_every_shell_script_is_posix() -> None:
    for script in ("gantry", ".ci/run"):
        run(["/bin/sh", "-n", script])


def run(words: list[str], **env: str) -> None:
    program = str(TOOLS / words[0]) if "/" not in words[0] else words[0]
    done = subprocess.run(
        [program, *words[1:]],
        cwd=CHECKOUT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(words)}\n{done.stdout}{done.stderr}", pytrace=False)
