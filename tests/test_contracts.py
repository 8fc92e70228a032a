"""The rules that tools check: imports go one way, types fit, the style is one style."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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
    for script in (
        "gantry",
        ".ci/run",
        "compose/entry.sh",
        "compose/postgres.sh",
        "compose/try.sh",
    ):
        run(["/bin/sh", "-n", script])


def test_continuous_integration_runs_what_a_developer_runs(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(CHECKOUT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "gantry").write_text('#!/bin/sh\nprintf "<%s>" "$@"\nexit 7\n')
    (tmp_path / "gantry").chmod(0o755)
    for words in ([], ["-k", "a lease"]):
        done = subprocess.run(
            [tmp_path / ".ci/run", *words], cwd="/", capture_output=True, text=True, check=False
        )
        said = "".join(f"<{word}>" for word in ["test", *words])
        assert (done.stdout, done.returncode) == (said, 7), done.stderr


HOOKS = ".pre-commit-config.yaml"


def test_a_commit_is_held_to_the_contracts_by_hooks(tmp_path: Path) -> None:
    hooks = {
        hook["id"]: hook["entry"].removeprefix("env GANTRY_SECRET_KEY=unused ")
        for repository in yaml.safe_load((CHECKOUT / HOOKS).read_text())["repos"]
        for hook in repository["hooks"]
    }
    assert hooks.keys() == {"ruff", "ruff-format", "import-linter", "mypy"}
    for words in (*CHECKS.values(), ["mypy"]):
        command = " ".join(word for word in words if word not in {"--check", "."})
        assert any(f"{entry} ".startswith(f".venv/bin/{command} ") for entry in hooks.values())

    # The two that look at one file, in a repository of one: the others were run above.
    (tmp_path / ".venv").symlink_to(CHECKOUT / ".venv")
    for name in (HOOKS, "pyproject.toml"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    (tmp_path / "one.py").write_text("import os\n\n\nx  =  undefined\n")
    env = {
        **{name: text for name, text in os.environ.items() if not name.startswith("GIT_")},
        "PATH": f"{TOOLS}:{os.environ['PATH']}",
        "PRE_COMMIT_HOME": str(tmp_path / ".git/cache"),
        "SKIP": "import-linter,mypy",
    }

    def ran(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    person = ("-c", "user.name=Alice", "-c", "user.email=alice@example.org")
    commit = ("git", *person, "commit", "--quiet", "--message", "One")
    assert ran("git", "init", "--quiet").returncode == 0
    assert ran("pre-commit", "install").returncode == 0
    assert ran("git", "add", "one.py", HOOKS).returncode == 0
    refused = ran(*commit)
    assert refused.returncode == 1
    assert "undefined" in refused.stderr and "1 file reformatted" in refused.stderr
    (tmp_path / "one.py").write_text("x = 1\n")
    assert ran("git", "add", "one.py").returncode == 0
    assert ran(*commit).returncode == 0


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
