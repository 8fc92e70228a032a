"""Reading repositories: commits, files, heads; and that Git reads nothing but the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from ciserver.projects.models import Project
from ciserver.repositories import git
from ciserver.repositories.command import environment, run
from ciserver.repositories.errors import (
    BadName,
    FileTooBig,
    GitFailed,
    UnknownCommit,
    UnknownFile,
)
from tests.ciserver.repositories.serving import commit
from tests.ciserver.repositories.serving import git as by_hand

FILES: dict[str, str | bytes] = {"gantry.yml": "tests: {}\n", "dir/Dockerfile": "FROM scratch\n"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    commit(tmp_path, FILES, "Add a Dockerfile\n\nand more words")
    return tmp_path


@pytest.fixture
def head(work: Path) -> str:
    return by_hand("rev-parse", "HEAD", cwd=work)


def test_a_commit_tells_who_wrote_it_and_what_it_is_about(work: Path, head: str) -> None:
    info = git.commit_info(work / ".git", head)

    assert (info.sha, info.subject, info.author) == (head, "Add a Dockerfile", "Alice Example")
    assert info.committed_at.tzinfo is not None


def test_an_author_whose_name_is_no_utf_8_is_shown_all_the_same(work: Path) -> None:
    env = {"GIT_AUTHOR_NAME": b"J\xf8rgen", "GIT_AUTHOR_EMAIL": b"j@example.org"}
    command = ["git", "commit", "--quiet", "--allow-empty", "-m", "x"]
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([command[0], *who, *command[1:]], cwd=work, env=os.environb | {
        key.encode(): value for key, value in env.items()
    }, check=True)  # fmt: skip
    head = by_hand("rev-parse", "HEAD", cwd=work)

    assert git.commit_info(work / ".git", head).author == "Jørgen"


@pytest.mark.parametrize("sha", ["main", "HEAD", "-h", "--all", "", "0" * 39, "A" * 40, "0" * 40])
def test_only_a_full_commit_id_that_is_there_names_a_commit(work: Path, sha: str) -> None:
    with pytest.raises((BadName, UnknownCommit)):
        git.commit_info(work / ".git", sha)


def test_a_tree_or_a_file_is_no_commit(work: Path) -> None:
    for name in ("HEAD^{tree}", "HEAD:gantry.yml"):
        with pytest.raises(UnknownCommit):
            git.commit_info(work / ".git", by_hand("rev-parse", name, cwd=work))


def test_a_file_is_read_as_it_was_committed(work: Path, head: str) -> None:
    (work / "gantry.yml").write_text("changed since")

    assert git.read_file(work / ".git", head, "gantry.yml", 100) == b"tests: {}\n"
    assert git.read_file(work / ".git", head, "dir/Dockerfile", 100) == b"FROM scratch\n"


def test_a_file_is_read_without_the_filters_its_repository_asks_for(work: Path) -> None:
    sha = commit(work, {".gitattributes": "*.yml text eol=crlf filter=evil\n"})

    assert git.read_file(work / ".git", sha, "gantry.yml", 100) == b"tests: {}\n"


def test_a_symbolic_link_is_never_followed(work: Path) -> None:
    (work / "passwd").symlink_to("/etc/passwd")
    (work / "link").symlink_to("dir")
    sha = commit(work, {})

    for path in ("passwd", "link", "link/Dockerfile"):
        with pytest.raises(UnknownFile):
            git.read_file(work / ".git", sha, path, 10_000)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "dir/../gantry.yml", "", ".", "dir//Dockerfile", "a\0b", "dir/"]
)
def test_a_path_that_does_not_stay_inside_is_refused(work: Path, head: str, path: str) -> None:
    with pytest.raises(BadName):
        git.read_file(work / ".git", head, path, 100)


@pytest.mark.parametrize("path", ["missing", "dir", "*", ":(glob)*", "gantry.y?l", ":/gantry.yml"])
def test_what_is_no_file_there_is_unknown(work: Path, head: str, path: str) -> None:
    with pytest.raises(UnknownFile):
        git.read_file(work / ".git", head, path, 100)


def test_a_file_over_the_callers_limit_is_not_read(work: Path, head: str) -> None:
    with pytest.raises(FileTooBig, match=r"'gantry\.yml' has 10 bytes; at most 9 are read"):
        git.read_file(work / ".git", head, "gantry.yml", 9)


def test_heads_are_exact(work: Path, head: str) -> None:
    by_hand("branch", "a/b", cwd=work)

    assert git.heads(work / ".git") == {"refs/heads/main": head, "refs/heads/a/b": head}
    assert git.heads(work / ".git", "refs/heads/a") == {}
    assert git.heads(work / ".git", "refs/heads/a/b") == {"refs/heads/a/b": head}


def test_a_hosted_repository_is_made_once(db: None) -> None:
    project = Project.objects.create(slug="new", default_branch="trunk")

    path = git.create_hosted(project)

    assert path == git.create_hosted(project) == git.git_dir(project)
    assert path == settings.GANTRY.repositories / f"{project.pk}.git"
    assert (path / "HEAD").read_text() == "ref: refs/heads/trunk\n"
    assert not (path / "hooks").exists()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_nothing_of_our_environment_reaches_git(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANTRY_SECRET_KEY", "sesame")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")

    shown = run("-c", "alias.show-env=!env", "show-env", git_dir=work / ".git").decode()

    names = {line.partition("=")[0] for line in shown.splitlines()}
    ours = {name for name in names if not name.startswith("GIT_")}
    assert ours <= {"PATH", "HOME", "XDG_CONFIG_HOME", "LC_ALL", "PWD", "OLDPWD", "SHLVL", "_"}
    assert f"GIT_DIR={work}/.git" in shown


def test_a_command_that_does_not_end_is_ended_with_all_it_started(work: Path) -> None:
    with pytest.raises(GitFailed, match=r"did not end within 0\.5 seconds"):
        run("-c", "alias.wait=!sleep 321.5; true", "wait", git_dir=work / ".git", timeout=0.5)

    assert not [
        entry
        for entry in Path("/proc").glob("[0-9]*/cmdline")
        if b"sleep\x00321.5" in _content(entry)
    ]


@pytest.mark.parametrize("url", ["ext::sh -c id", "file:///etc", "/etc", "fd::1", "git://[::1]/x"])
def test_no_transport_is_spoken_that_was_not_asked_for(work: Path, url: str) -> None:
    env = environment(protocols="https")

    with pytest.raises(GitFailed, match=r"not allowed"):
        run("ls-remote", "--end-of-options", url, git_dir=work / ".git", env=env)


@pytest.fixture
def nobodys(work: Path) -> Iterator[Path]:
    """A copy of the repository in which everything belongs to another user."""
    folder = Path(tempfile.mkdtemp(prefix="gantry-nobody-"))
    folder.chmod(0o755)
    copy = folder / "x.git"
    shutil.copytree(work / ".git", copy)
    for path in [copy, *copy.rglob("*")]:
        os.chown(path, 65534, 65534)
    yield copy
    shutil.rmtree(folder)


@pytest.mark.root
def test_root_reads_another_users_repository_with_that_users_rights(
    nobodys: Path, head: str
) -> None:
    assert git.commit_info(nobodys, head).sha == head

    who = run("-c", "alias.who=!id -u; id -G", "who", git_dir=nobodys).decode().split()

    assert who == ["65534", "65534"]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_replacement_that_was_pushed_does_not_change_what_a_commit_is(work: Path) -> None:
    sha = by_hand("rev-parse", "HEAD", cwd=work)
    other = commit(work, {"gantry.yml": "evil"}, "Other")
    by_hand("replace", sha, other, cwd=work)

    assert git.commit_info(work / ".git", sha).subject == "Add a Dockerfile"
    assert git.read_file(work / ".git", sha, "gantry.yml", 100) == b"tests: {}\n"


@pytest.mark.parametrize(
    ("seconds", "year"), [("0", 1970), ("999999999999", 2242), ("99999999999999", 2242)]
)
def test_a_time_that_no_calendar_has_is_brought_into_one(
    work: Path, seconds: str, year: int
) -> None:
    sha = _commit_object(work, f"Alice <a@example.org> {seconds} +0000")

    assert git.commit_info(work / ".git", sha).committed_at.year == year


def test_a_commit_without_a_readable_committer_is_read_all_the_same(work: Path) -> None:
    sha = _commit_object(work, "nobody, at no time")

    assert git.commit_info(work / ".git", sha).committed_at.year == 1970


def test_a_git_that_fails_is_not_a_missing_commit(work: Path, head: str) -> None:
    (work / ".git/HEAD").unlink()
    with pytest.raises(GitFailed, match="not a git repository"):
        git.commit_info(work / ".git", head)
    with pytest.raises(GitFailed, match="not a git repository"):
        git.read_file(work / ".git", head, "gantry.yml", 100)


def _commit_object(work: Path, committer: str) -> str:
    tree = by_hand("rev-parse", "HEAD^{tree}", cwd=work)
    text = f"tree {tree}\nauthor A <a@example.org> 0 +0000\ncommitter {committer}\n\nx\n"
    (work / "commit").write_text(text)
    return by_hand("hash-object", "-t", "commit", "-w", "--literally", "commit", cwd=work)
