"""What lies between two commits of a real repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ciserver.repositories import history
from ciserver.repositories.errors import RepositoryError


@pytest.fixture
def commits(tmp_path: Path) -> tuple[Path, list[str]]:
    """A repository with five commits."""
    where = tmp_path / "a.git"

    def git(*words: str) -> str:
        who = ["-c", "user.name=Eve\tE", "-c", "user.email=e@example.org"]
        argv = ["git", *who, f"--git-dir={where}", *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    subprocess.run(["git", "init", "-q", "--bare", str(where)], check=True)
    tree = git("hash-object", "-t", "tree", "-w", "/dev/null")
    made: list[str] = []
    for number in range(5):
        parent = ["-p", made[-1]] if made else []
        made.append(git("commit-tree", tree, *parent, "-m", f"Change {number}\n\nbody"))
    return where, made


def test_the_newest_come_first_and_all_are_counted(commits: tuple[Path, list[str]]) -> None:
    where, made = commits
    found, count = history.between(where, made[1], made[4], limit=2)
    assert [one.subject for one in found] == ["Change 4", "Change 3"]
    assert (found[0].sha, found[0].short) == (made[4], made[4][:8])
    assert count == 3
    assert history.between(where, made[4], made[4], limit=2) == ([], 0)


def test_a_commit_that_is_not_there_is_an_error_not_an_empty_list(
    commits: tuple[Path, list[str]], tmp_path: Path
) -> None:
    where, made = commits
    with pytest.raises(RepositoryError):
        history.between(where, "0" * 40, made[0], limit=2)
    with pytest.raises(RepositoryError, match="not a full commit id"):
        history.between(where, "--all", made[0], limit=2)
    with pytest.raises(RepositoryError, match="not here"):
        history.between(tmp_path / "none.git", made[0], made[1], limit=2)
