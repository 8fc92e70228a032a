"""Build contexts: a commit and a folder say the same, and neither can be left."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from builders.context import Context, Entry, Kind
from builders.context.folder import FolderContext
from builders.context.git import MAX_ENTRIES, GitContext, find_commit
from builders.context.ignore import Ignore
from builders.context.tree import ContextTree, read_file
from builders.errors import ContextError

Project = Callable[[Mapping[str, str]], Path]


def git(folder: Path, *args: str) -> str:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": "2024-01-02T03:04:05Z",
        "GIT_COMMITTER_DATE": "2024-01-02T03:04:05Z",
    }
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *args]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def commit_all(folder: Path) -> GitContext:
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "x")
    return GitContext(*find_commit(folder, "main"))


def tree(context: Context, ignore: bytes = b"") -> ContextTree:
    return ContextTree(context, lambda: Ignore.parse(ignore))


def content(context: Context) -> dict[str, bytes]:
    wanted = [entry for entry in context.entries() if entry.kind is not Kind.FOLDER]
    return {entry.path: b"".join(chunks) for entry, chunks in context.read(wanted)}


FILES = {"a": "1", "d/b": "2", "d/e/c": "3", "with space/ü": "4", "empty": ""}


def test_a_commit_and_its_folder_have_the_same_entries(project: Project) -> None:
    root = project(FILES)
    (root / "d/b").chmod(0o755)
    (root / "link").symlink_to("d/b")
    by_git, by_folder = commit_all(root), FolderContext(root)

    def shape(context: Context) -> set[tuple[str, Kind, int]]:
        return {
            (entry.path, entry.kind, entry.mode)
            for entry in context.entries()
            if not entry.path.startswith(".git")
        }

    assert shape(by_git) == shape(by_folder)
    expected = {path: text.encode() for path, text in FILES.items()} | {"link": b"d/b"}
    assert content(by_git) == expected
    by_git.close()
    by_folder.close()


def test_a_digest_is_of_content_kind_and_mode(project: Project) -> None:
    root = project({"a": "1", "b": "1"})
    context = FolderContext(root)
    digest = tree(context).digest
    first = digest(Entry("a", Kind.FILE, 0o644))
    assert first == digest(Entry("b", Kind.FILE, 0o644))
    assert first != digest(Entry("a", Kind.FILE, 0o755))
    (root / "b").write_text("2")
    assert first != tree(FolderContext(root)).digest(Entry("b", Kind.FILE, 0o644))


def test_git_reads_many_files_in_one_process_whatever_is_left_unread(project: Project) -> None:
    files = {f"f{number:04}": "x" * number for number in range(1500)}
    context = commit_all(project(files))
    entries = context.entries()
    half = [entry.path for entry, _ in context.read(entries)]
    assert half == [entry.path for entry in entries]
    first = context._cat
    assert content(context) == {path: text.encode() for path, text in files.items()}
    assert context._cat is first
    context.close()


def test_one_name_is_found_without_a_list_of_all(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(FILES)
    (root / "link").symlink_to("d")
    context = commit_all(root)
    with monkeypatch.context() as patched:
        patched.setattr(GitContext, "entries", None)
        found = {path: context.find(path) for path in [*FILES, "d", "link"]}
        missing = ["no", "d/no", "a/b", "link/b", "d\nb", "../a", "D/b", "d/", "\udcff"]
        assert [context.find(path) for path in missing] == [None] * len(missing)
    listed = {entry.path: entry for entry in context.entries()}
    assert found == {path: listed[path] for path in found}
    inner = GitContext(*find_commit(root, "main"), "d/e")
    assert inner.find("c") == Entry("c", Kind.FILE, 0o644, listed["d/e/c"].token)
    inner.close()
    context.close()


def test_no_name_is_found_in_a_commit_that_is_not_there_or_a_folder_that_is_too_big(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(FILES)
    context = commit_all(root)
    monkeypatch.setattr("builders.context.git.MAX_TREE", 10)
    with pytest.raises(ContextError, match="too many entries"):
        context.find("a")
    with pytest.raises(ContextError, match=r"deadbeef.* it is not there"):
        GitContext(root / ".git", "deadbeef" * 5).find("a")
    assert content(context)["a"] == b"1"  # it goes on
    context.close()


def test_git_survives_a_reader_that_gives_up(project: Project) -> None:
    context = commit_all(project({"a": "1" * 100_000, "b": "2"}))
    reading = context.read(context.entries())
    next(reading)
    reading.close()
    assert content(context)["b"] == b"2"
    context.close()


def test_a_subfolder_of_a_commit_can_be_the_context(project: Project) -> None:
    root = project(FILES)
    commit_all(root).close()
    git_dir, commit = find_commit(root, "main")
    context = GitContext(git_dir, commit, "d/e")
    assert content(context) == {"c": b"3"}
    context.close()


@pytest.mark.parametrize("subdir", ["..", "d/../..", "/../etc"])
def test_a_subfolder_cannot_leave_the_repository(project: Project, subdir: str) -> None:
    root = project(FILES)
    commit_all(root).close()
    with pytest.raises(ContextError, match="leaves the repository"):
        GitContext(*find_commit(root, "main"), subdir)


def test_a_subfolder_that_is_a_link_is_refused(project: Project) -> None:
    root = project({"a": "1"})
    (root / "link").symlink_to("/etc")
    commit_all(root).close()
    with pytest.raises(ContextError, match="Cannot read"):
        GitContext(*find_commit(root, "main"), "link").entries()


@pytest.mark.parametrize("commit", ["HEAD", "--upload-pack=x", "main", "a" * 39, "", "A" * 40])
def test_only_a_full_commit_id_is_a_commit(tmp_path: Path, commit: str) -> None:
    with pytest.raises(ContextError, match="no full commit id"):
        GitContext(tmp_path, commit)


def test_an_unknown_commit_is_named(project: Project) -> None:
    root = project(FILES)
    commit_all(root).close()
    with pytest.raises(ContextError, match="deadbeef"):
        GitContext(root / ".git", "deadbeef" * 5).entries()


def test_neither_filters_nor_hooks_nor_settings_of_a_repository_run(project: Project) -> None:
    root = project({"a": "1", ".gitattributes": "* filter=evil\n"})
    context = commit_all(root)
    witness = root / "ran"
    with (root / ".git/config").open("a") as config:
        config.write(f'[filter "evil"]\n\tsmudge = touch {witness}\n\tclean = touch {witness}\n')
        config.write(f"[core]\n\tfsmonitor = touch {witness}\n\tpager = touch {witness}\n")
    assert content(context)["a"] == b"1"
    assert not witness.exists()
    context.close()


def test_a_submodule_is_an_empty_folder_and_a_notice(project: Project) -> None:
    root = project({"a": "1"})
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},lib/sub")
    git(root, "commit", "-q", "-m", "x")
    context = GitContext(*find_commit(root, "main"))
    entries = {entry.path: entry.kind for entry in context.entries()}
    assert entries == {"a": Kind.FILE, "lib": Kind.FOLDER, "lib/sub": Kind.FOLDER}
    assert context.notices == ["The submodule lib/sub is not part of the context."]


def test_the_commit_says_its_time(project: Project) -> None:
    assert commit_all(project({"a": "1"})).commit_time() == 1_704_164_645


@pytest.mark.parametrize(("seconds", "told"), [("0", 0), ("999999999999", 8**11 - 1)])
def test_the_commits_time_is_one_that_a_layer_can_hold(
    project: Project, seconds: str, told: int
) -> None:
    root = project({"a": "1"})
    commit_all(root).close()
    text = git(root, "cat-file", "commit", "main").replace("1704164645", seconds)
    (root / "commit").write_text(text)
    commit = git(root, "hash-object", "-t", "commit", "-w", "commit").strip()

    assert GitContext(root / ".git", commit).commit_time() == told


def git_bomb(root: Path, levels: int, name: str = "%d") -> GitContext:
    """A commit of a few objects that lists 10 to the power of ``levels`` paths."""
    git(root, "init", "-q", "-b", "main")
    (root / "blob").write_text("x")
    mode, kind, oid = "100644", "blob", git(root, "hash-object", "-w", "blob").strip()
    for _ in range(levels):
        lines = "".join(f"{mode} {kind} {oid}\t{name % number}\n" for number in range(10))
        command = ["git", "-C", str(root), "mktree"]
        done = subprocess.run(command, input=lines, check=True, capture_output=True, text=True)
        mode, kind, oid = "040000", "tree", done.stdout.strip()
    return GitContext(root / ".git", git(root, "commit-tree", "-m", "x", oid).strip())


@pytest.mark.parametrize(
    ("levels", "name", "most"),
    [(11, "%d", 50_000), (11, "%d" + "x" * 250, 10**6), (1, "%d" + "x" * 2_000_000, 10**6)],
    ids=["of very many paths", "of long paths", "of a name that is longer than any path"],
)
def test_a_git_bomb_is_told_from_a_repository(
    project: Project, levels: int, name: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To list a million files takes two seconds; that they are the bound, nothing else says."""
    assert MAX_ENTRIES == 1_000_000
    monkeypatch.setattr("builders.context.git.MAX_ENTRIES", most)
    context = git_bomb(project({}), levels, name)

    with pytest.raises(ContextError, match=rf"more than {most:,} files .* build\.context"):
        context.entries()

    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _runs_in(path, context)]


def _runs_in(cmdline: Path, context: GitContext) -> bool:
    try:
        return str(context._git_dir).encode() in cmdline.read_bytes()
    except OSError:
        return False


def test_a_listing_that_takes_too_long_is_ended(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.context.git.LISTED_WITHIN", 0.2)
    monkeypatch.setattr("builders.context.git.MAX_ENTRIES", 10**12)
    monkeypatch.setattr("builders.context.git.MAX_LISTING", 10**12)
    context = git_bomb(project({}), 11)

    with pytest.raises(ContextError, match=r"git ls-tree did not end within 0\.2 seconds"):
        context.entries()


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A repository that belongs to another user."""
    root = Path(tempfile.mkdtemp(prefix="gantry-nobody-"))
    root.chmod(0o755)
    (root / "a").write_text("1")
    commit_all(root).close()
    for path in [root, *root.rglob("*")]:
        os.chown(path, 65534, 65534)
    yield root
    shutil.rmtree(root)


@pytest.mark.root
def test_root_reads_another_users_repository_with_that_users_rights(nobodys: Path) -> None:
    context = GitContext(*find_commit(nobodys, "main"))
    try:
        assert content(context) == {"a": b"1"}
        assert context._cat is not None
        status = Path(f"/proc/{context._cat.pid}/status").read_text()
    finally:
        context.close()

    words = {line.partition(":")[0]: line.split()[1:] for line in status.splitlines()}
    assert set(words["Uid"]) == set(words["Gid"]) == {"65534"}
    assert words["Groups"] == []


def test_builder_and_service_start_git_under_the_same_rules() -> None:
    from builders.context import command as ours
    from ciserver.repositories import command as theirs

    names = [name for name in theirs.environment() if not name.startswith("GIT_CONFIG_KEY_")]
    shared = {name for name in names if not name.startswith(("GIT_CONFIG_V", "GIT_CONFIG_C"))}
    assert dict(ours.ENVIRONMENT) == {name: theirs.environment()[name] for name in shared}
    both = ours.SETTINGS.keys() & theirs.SETTINGS.keys()
    assert {key: ours.SETTINGS[key] for key in both} == {key: theirs.SETTINGS[key] for key in both}
    # What only one of them says is of what the other never does: fetch, receive, detach.
    assert ours.SETTINGS.keys() - both == {"protocol.allow"}
    only = ("fetch.", "receive.", "transfer.", "http.", "gc.autoDetach")
    assert all(key.startswith(only) for key in theirs.SETTINGS.keys() - both)


def test_links_are_resolved_inside_the_context(project: Project) -> None:
    root = project({"d/b": "2", "etc/passwd": "ours"})
    for name, target in {
        "rel": "d/b", "abs": "/etc/passwd", "up": "../../../../etc/passwd", "dir": "d",
        "loop": "loop", "gone": "nowhere",
    }.items():  # fmt: skip
        (root / name).symlink_to(target)
    context = FolderContext(root)
    seen = tree(context)

    def real(path: str) -> str | None:
        entry = seen.resolve(path)
        return entry.path if entry else None

    assert real("rel") == "d/b"
    assert real("dir/b") == "d/b"
    assert real("abs") == real("up") == "etc/passwd"
    assert read_file(context, "abs", 100) == b"ours"
    assert real("gone") is None
    assert real("d/../../rel") == "d/b"
    with pytest.raises(ContextError, match="Too many symbolic links"):
        seen.resolve("loop")


def test_a_dockerfile_through_a_link_out_of_the_context_is_not_found(project: Project) -> None:
    root = project({"a": "1"})
    (root / "link").symlink_to("/etc")
    assert read_file(FolderContext(root), "link/passwd", 1000) is None


def test_a_folder_swapped_for_a_link_is_not_followed(project: Project, tmp_path: Path) -> None:
    root = project({"d/b": "2"})
    context = FolderContext(root)
    entries = list(context.entries())
    (root / "d/b").unlink()
    (root / "d").rmdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/b").write_text("stolen")
    (root / "d").symlink_to(tmp_path / "outside")
    with pytest.raises(ContextError, match="d/b"):
        [b"".join(chunks) for _, chunks in context.read(e for e in entries if e.path == "d/b")]


def test_a_file_that_changes_after_its_key_was_made_fails_the_build(project: Project) -> None:
    root = project({"a": "1"})
    context = FolderContext(root)
    (entry,) = context.entries()
    context.digest(entry)
    (root / "a").write_text("2")
    with pytest.raises(ContextError, match="changed while it was being copied"):
        content(context)


def test_pipes_and_sockets_are_left_out_with_a_notice(project: Project) -> None:
    root = project({"a": "1"})
    os.mkfifo(root / "pipe")
    context = FolderContext(root)
    assert [entry.path for entry in context.entries()] == ["a"]
    assert "pipe" in context.notices[0]


def test_a_file_too_large_is_refused_before_it_is_read_whole(project: Project) -> None:
    with pytest.raises(ContextError, match="larger than 10 bytes"):
        read_file(FolderContext(project({"a": "x" * 11})), "a", 10)


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        (b"", {"a", "d", "d/b", "d/e", "d/e/c"}),
        (b"d", {"a"}),
        (b"*\n!d/e/c", {"d", "d/e", "d/e/c"}),
        (b"**/c\na", {"d", "d/b", "d/e"}),
        (b"d/*\n!d/b", {"a", "d", "d/b"}),
        (b"# d\n\n  a  ", {"d", "d/b", "d/e", "d/e/c"}),
    ],
)
def test_ignore_rules_hide_entries(project: Project, rules: bytes, left: set[str]) -> None:
    context = FolderContext(project({"a": "1", "d/b": "2", "d/e/c": "3"}))
    shown = Ignore.parse(rules).filter(context.entries())
    assert {entry.path for entry in shown} == left


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", ["a.txt", "b.txt", "d"]),
        ("*.txt", ["a.txt", "b.txt"]),
        ("d/?", ["d/x"]),
        ("[a-c].txt", ["a.txt", "b.txt"]),
        ("[^a].txt", ["b.txt"]),
        ("*/x", ["d/x"]),
        ("nothing*", []),
    ],
)
def test_wildcards_match_one_component(project: Project, pattern: str, found: list[str]) -> None:
    context = FolderContext(project({"a.txt": "", "b.txt": "", "d/x": "", "d/yy": ""}))
    assert tree(context).match(pattern) == found
