"""A commit that was built lately is not listed again; nothing else is remembered."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from builders.context import command
from builders.context.git import GitContext, find_commit
from builders.context.ignore import Ignore
from builders.context.recent import Recent
from builders.context.tree import ContextTree
from builders.fakes import MemoryContext


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", root, *who, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for number in range(3):
        path = tmp_path / f"src/f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{tmp_path} {number}")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "x")
    return tmp_path


def tree_of(root: Path, ignore: bytes = b"") -> ContextTree:
    return ContextTree(GitContext(*find_commit(root, "HEAD")), lambda: Ignore.parse(ignore))


def digest(tree: ContextTree) -> str:
    entry = tree.resolve("src")
    assert entry is not None
    return tree.digest(entry)


def test_the_same_commit_is_listed_once(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest(tree_of(repository))
    asked: list[str] = []
    real = command.output

    def counted(git_dir: Path, *words: str, seconds: float) -> object:
        asked.append(words[0])
        return real(git_dir, *words, seconds=seconds)

    monkeypatch.setattr(command, "output", counted)
    assert digest(tree_of(repository)) == first
    assert asked == ["rev-parse"]


def test_other_rules_and_another_commit_are_told_apart(repository: Path) -> None:
    first = digest(tree_of(repository))
    assert digest(tree_of(repository, b"src/f1\n")) != first
    assert tree_of(repository, b"src/f1\n").resolve("src/f1") is None
    assert digest(tree_of(repository)) == first
    (repository / "src/f1").write_text("changed")
    git(repository, "commit", "-q", "-a", "-m", "y")
    assert digest(tree_of(repository)) != first


def test_submodules_are_told_each_time(repository: Path) -> None:
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},lib")
    git(repository, "commit", "-q", "-m", "z")
    for _ in range(2):
        context = GitContext(*find_commit(repository, "HEAD"))
        context.entries()
        assert context.notices == ["The submodule lib is not part of the context."]


def test_a_context_that_may_change_is_never_remembered() -> None:
    def resolve(files: dict[str, bytes | str]) -> bool:
        return ContextTree(MemoryContext(files), lambda: Ignore.parse(b"")).resolve("a") is not None

    assert resolve({"a": b"1"})
    assert not resolve({"b": b"1"})


def test_what_was_not_used_for_longest_makes_room() -> None:
    recent: Recent[str] = Recent(most=10)
    recent.keep("a", "A", 4)
    recent.keep("b", "B", 4)
    assert recent.get("a") == "A"
    recent.keep("c", "C", 4)
    assert [recent.get(key) for key in "abc"] == ["A", None, "C"]
    recent.keep("huge", "H", 11)
    assert recent.get("huge") is None
    recent.keep("a", "A2", 10)
    assert [recent.get(key) for key in "abc"] == ["A2", None, None]
