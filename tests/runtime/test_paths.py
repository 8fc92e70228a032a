"""Paths inside a root that somebody else filled: nothing outside is read, made or followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import paths
from runtime.errors import SpecError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("inside")
    (root / "a/b").mkdir(parents=True)
    for name, target in {
        "absolute": "/etc",
        "up": "../../../../../etc",
        "a/deep-up": "../../../../../../etc/passwd",
        "magic": "/proc/self/cwd",
        "loop": "loop",
        "loop1": "loop2",
        "loop2": "/loop1",
        "dangling": "/new/place",
        "a/b/relative": "../../etc/passwd",
        "dot": ".",
        "chain": "absolute/../absolute/passwd",
    }.items():
        (root / name).symlink_to(target)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("outside")
    return root


@pytest.fixture
def root(tree: Path) -> Iterator[int]:
    with paths.open_root(tree) as fd:
        yield fd


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "etc/passwd",
        "absolute/passwd",
        "up/passwd",
        "../../../etc/passwd",
        "/../etc/passwd",
        "a/deep-up",
        "a/b/relative",
        "dot/dot/etc/./passwd",
        "chain",
    ],
)
def test_every_way_leads_to_the_file_inside(path: str, root: int) -> None:
    assert paths.read_in_root(root, path, 100) == b"inside"
    assert paths.resolve_in_root(root, path) == "/etc/passwd"


def test_a_link_into_proc_means_the_roots_own_proc(root: int) -> None:
    with pytest.raises(FileNotFoundError):
        paths.read_in_root(root, "magic/passwd", 100)


def test_a_circle_of_links_is_an_error_and_no_hang(root: int) -> None:
    for path in ("loop", "loop1/x"):
        with pytest.raises(SpecError, match="Too many symbolic links"):
            paths.resolve_in_root(root, path)
        with pytest.raises(OSError, match="symbolic links"):
            paths.open_in_root(root, path)
        assert paths.exists_in_root(root, path) is None


def test_magic_links_of_a_mounted_proc_are_not_followed() -> None:
    with paths.open_root(Path("/")) as root:
        for path in ("/proc/self/cwd", "/proc/self/root/etc", "/proc/self/exe"):
            with pytest.raises(OSError, match="symbolic links"):
                os.close(paths.open_in_root(root, path))


def test_missing_parts_are_kept_when_resolving(root: int) -> None:
    assert paths.resolve_in_root(root, "/absolute/x/../y") == "/etc/y"
    assert paths.resolve_in_root(root, "dangling/z") == "/new/place/z"
    assert paths.resolve_in_root(root, "") == "/"


def test_directories_are_made_inside_through_links(root: int, tree: Path) -> None:
    assert paths.mkdir_in_root(root, "/absolute/x/y") == ["/etc/x", "/etc/x/y"]
    assert paths.mkdir_in_root(root, "up/x/y") == []
    assert paths.mkdir_in_root(root, "dangling/z")[-1] == "/new/place/z"
    assert paths.mkdir_in_root(root, "/magic/x")[-1] == "/proc/self/cwd/x"
    assert (tree / "etc/x/y").is_dir() and (tree / "new/place/z").is_dir()
    assert not (tree.parent / "etc/x").exists()


def test_new_directories_get_mode_and_owner_and_old_ones_keep_theirs(root: int, tree: Path) -> None:
    (tree / "a").chmod(0o700)
    old_umask = os.umask(0o077)
    try:
        paths.mkdir_in_root(root, "a/n/m", mode=0o755, owner=(os.getuid(), os.getgid()))
    finally:
        os.umask(old_umask)
    assert (tree / "a").stat().st_mode & 0o777 == 0o700
    assert {(tree / p).stat().st_mode & 0o7777 for p in ("a/n", "a/n/m")} == {0o755}


def test_a_file_in_the_way_is_named(root: int) -> None:
    with pytest.raises(NotADirectoryError, match="/etc/passwd"):
        paths.mkdir_in_root(root, "etc/passwd/x")


def test_beneath_refuses_every_link(root: int) -> None:
    os.close(paths.open_beneath(root, "etc/passwd"))
    for path in ("absolute/passwd", "chain", "../etc"):
        with pytest.raises(OSError, match=r"symbolic links|cross-device"):
            paths.open_beneath(root, path)


def test_only_regular_files_up_to_the_limit_are_read(root: int, tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "big").write_bytes(b"x" * 101)
    for path, words in (("fifo", "no regular file"), ("etc", "no regular file"), ("big", "bigger")):
        with pytest.raises(SpecError, match=words):
            paths.read_in_root(root, path, 100)


def test_the_parent_and_last_name_are_given_without_following_it(root: int) -> None:
    fd, name = paths.open_parent_in_root(root, "absolute/passwd")
    assert Path(f"/proc/self/fd/{fd}").readlink().match("root/etc") and name == "passwd"
    os.close(fd)
    with pytest.raises(SpecError, match="the root itself"):
        paths.open_parent_in_root(root, "/..")


def test_the_first_closed_directory_on_the_way_is_found(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "below").mkdir(parents=True)
    for path in (closed, closed / "below"):
        path.chmod(0o755)
    base = paths.readable_by_mapped(tmp_path)
    closed.chmod(0o750)
    assert paths.readable_by_mapped(closed / "below") == (base or closed)
