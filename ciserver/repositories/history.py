"""What lies between two commits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ciserver.repositories.command import run
from ciserver.repositories.errors import GitFailed, RepositoryError
from ciserver.repositories.names import check_sha

TIMEOUT = 5.0  # seconds: a page waits for it
MOST_CHANGED = 20_000


@dataclass(frozen=True, slots=True)
class Commit:
    sha: str
    author: str
    subject: str

    @property
    def short(self) -> str:
        return self.sha[:8]


def between(git_dir: Path, old: str, new: str, *, limit: int) -> tuple[list[Commit], int]:
    """The commits that ``new`` has and ``old`` has not, newest first, ``limit`` at the most, and
    how many there are in all. Raises GitFailed when the repository lacks one of them."""
    wanted = f"{check_sha(old)}..{check_sha(new)}"
    if not git_dir.is_dir():
        raise RepositoryError("The repository is not here.")
    counted = run(
        "rev-list", "--count", "--end-of-options", wanted, git_dir=git_dir, timeout=TIMEOUT
    )
    output = run(
        "rev-list",
        f"--max-count={limit}",
        "--no-commit-header",
        "--format=%H%x00%an%x00%s",
        "--end-of-options",
        wanted,
        git_dir=git_dir,
        timeout=TIMEOUT,
    )
    lines = output.decode(errors="replace").split("\n")
    fields = (line.split("\0", 2) for line in lines if line)
    found = [Commit(*field) for field in fields if len(field) == 3]
    return found, int(counted)


def changed(git_dir: Path, old: str, new: str) -> frozenset[str] | None:
    """Paths of the files that two commits do not have alike; None for more than MOST_CHANGED.
    Raises GitFailed when the repository lacks one of them."""
    words = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", "--end-of-options"]
    output = run(*words, check_sha(old), check_sha(new), git_dir=git_dir)
    names = output.decode(errors="replace").split("\0")[:-1]
    return frozenset(names) if len(names) <= MOST_CHANGED else None


def merge_base(git_dir: Path, one: str, other: str) -> str | None:
    """Where two histories part, None when they have nothing in common."""
    words = ["merge-base", "--end-of-options", check_sha(one), check_sha(other)]
    try:
        return run(*words, git_dir=git_dir, timeout=TIMEOUT).decode().strip() or None
    except GitFailed:
        return None


def ancestors(git_dir: Path, commit: str, *, limit: int) -> list[str]:
    """``commit`` and those before it, the nearest first. Raises GitFailed."""
    words = ["rev-list", "--topo-order", f"--max-count={limit}", "--end-of-options"]
    output = run(*words, check_sha(commit), git_dir=git_dir, timeout=TIMEOUT)
    return output.decode().split()


def files(git_dir: Path, commit: str) -> dict[str, str]:
    """Path -> blob id of every file of a commit. Raises GitFailed."""
    words = ["ls-tree", "-r", "-z", "--full-tree", "--end-of-options", check_sha(commit)]
    output = run(*words, git_dir=git_dir).decode(errors="replace")
    entries = (entry.split("\t", 1) for entry in output.split("\0") if entry)
    return {path: head.split()[2] for head, path in entries}
