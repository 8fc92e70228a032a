"""Unpacking honest layers: what one tree was, the other is."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders.images import tarformat
from builders.images.extract import extract_tar
from builders.images.layers import LayerLimits
from builders.images.streams import HashingReader, TarStream
from builders.images.tarformat import Member
from runtime.removal import remove_path
from tests.builders.images.trees import describe, digest_of, tar, tar_of, whiteout

pytestmark = pytest.mark.root
BASE = 1_000_000


def unpack(data: bytes, tree: Path, *, base: int = 0) -> TarStream:
    tree.mkdir(exist_ok=True)
    limits = LayerLimits()
    source = TarStream(HashingReader(io.BytesIO(data), limit=len(data)), "none", limits)
    extract_tar(source, tree, base=base, limits=limits)
    return source


def build(tree: Path) -> None:
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/su").write_bytes(b"\0" * 70_000)
    os.chown(tree / "bin/su", 0, 42)
    (tree / "bin/su").chmod(0o4755)
    os.link(tree / "bin/su", tree / "bin/su2")
    (tree / "bin/ping").write_text("x")
    capability = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
    os.setxattr(tree / "bin/ping", "security.capability", capability)
    os.setxattr(tree / "bin/ping", "user.note", b"hello")
    (tree / "sh").symlink_to("/bin/../etc/nothing")
    os.mkfifo(tree / "fifo")
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)
    (tree / "opaque").mkdir()
    os.setxattr(tree / "opaque", "trusted.overlay.opaque", b"y")
    whiteout(tree / "gone")
    os.utime(tree / "bin", (5, 5))


def test_a_tree_comes_back_with_all_that_a_layer_carries(tmp_path: Path) -> None:
    build(tmp_path / "tree")
    data = tar_of(tmp_path / "tree")
    source = unpack(data, tmp_path / "out")
    assert describe(tmp_path / "out") == describe(tmp_path / "tree")
    assert source.digest == digest_of(tmp_path / "out", epoch=None)


def test_owners_can_be_shifted_and_shifted_back(tmp_path: Path) -> None:
    build(tmp_path / "tree")
    data = tar_of(tmp_path / "tree")
    unpack(data, tmp_path / "out", base=BASE)
    assert (tmp_path / "out/bin/su").stat().st_gid == BASE + 42
    assert tar_of(tmp_path / "out", base=BASE) == data


safe_part = st.binary(min_size=1, max_size=60).filter(
    lambda b: b"/" not in b and b"\0" not in b and b not in (b".", b"..") and b[:4] != b".wh."
)
entries = st.tuples(
    st.lists(safe_part, min_size=1, max_size=4),
    st.sampled_from(("file", "dir", "link")),
    st.binary(max_size=2000),
    st.integers(0, 0o7777),
    st.integers(0, 65535),
    st.integers(0, 2**33),
)


@given(st.lists(entries, max_size=12))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_tree_survives_the_round_trip(tmp_path: Path, described: list[Any]) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    for folder in (tree, out):
        remove_path(folder)
        folder.mkdir()
    for parts, kind, content, mode, owner, mtime in described:
        path = tree.joinpath(*map(os.fsdecode, parts))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "dir":
                path.mkdir()
            elif kind == "file":
                path.write_bytes(content)
            elif b"\0" not in content[:300] and content:
                path.symlink_to(os.fsdecode(content[:300]))
        except OSError:
            continue
        if os.path.lexists(path):
            os.chown(path, owner, 65535 - owner, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(mode)
            os.utime(path, (mtime, mtime), follow_symlinks=False)
    data = tar_of(tree, epoch=2**33)
    unpack(data, out)
    assert describe(out) == describe(tree)


@pytest.mark.parametrize("base", [0, BASE])
def test_members_without_their_parents_get_plain_ones(tmp_path: Path, base: int) -> None:
    unpack(tar(Member(b"a/b/c", mode=0o600)), tmp_path / "out", base=base)
    status = (tmp_path / "out/a/b").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o755, base, base)


def test_a_later_member_replaces_an_earlier_one_of_any_kind(tmp_path: Path) -> None:
    unpack(
        tar(
            Member(b"x/", tarformat.DIRECTORY),
            Member(b"x/inner/file"),
            Member(b"x", tarformat.SYMLINK, link=b"/etc"),
            Member(b"x"),
            Member(b"y"),
            Member(b"y/", tarformat.DIRECTORY, mode=0o700),
            content=b"new",
        ),
        tmp_path / "out",
    )
    assert (tmp_path / "out/x").read_bytes() == b"new"
    assert (tmp_path / "out/y").is_dir()


def test_a_directory_named_twice_keeps_its_files_and_gets_the_last_mode(tmp_path: Path) -> None:
    unpack(
        tar(
            Member(b"d/", tarformat.DIRECTORY, mode=0o755, mtime=10**9),
            Member(b"d/f"),
            Member(b"./d", tarformat.DIRECTORY, mode=0o700, mtime=2 * 10**9),
        ),
        tmp_path / "out",
    )
    status = (tmp_path / "out/d").stat()
    assert (status.st_mode & 0o7777, status.st_mtime) == (0o700, 2)
    assert (tmp_path / "out/d/f").exists()


def test_a_directory_after_its_own_whiteout_hides_what_is_below(tmp_path: Path) -> None:
    for order in (0, 1, 2):
        out = tmp_path / f"out{order}"
        steps = [
            [Member(b".wh.d"), Member(b"d/", tarformat.DIRECTORY), Member(b"d/f")],
            [Member(b"d/", tarformat.DIRECTORY), Member(b"d/f"), Member(b".wh.d")],
            [Member(b".wh.d"), Member(b"d/f")],
        ][order]
        unpack(tar(*steps), out)
        assert (out / "d/f").exists()
        assert os.getxattr(out / "d", "trusted.overlay.opaque") == b"y"


def test_a_file_of_the_same_layer_outlives_its_whiteout(tmp_path: Path) -> None:
    unpack(tar(Member(b"f"), Member(b".wh.f"), Member(b".wh.g"), Member(b"g")), tmp_path / "out")
    assert (tmp_path / "out/f").is_file()
    assert (tmp_path / "out/g").is_file()


def test_a_member_may_pass_through_a_link_of_its_own_layer(tmp_path: Path) -> None:
    unpack(
        tar(
            Member(b"usr/lib/", tarformat.DIRECTORY),
            Member(b"lib", tarformat.SYMLINK, link=b"/usr/lib"),
            Member(b"lib/x"),
        ),
        tmp_path / "out",
    )
    assert (tmp_path / "out/usr/lib/x").is_file()
    assert (tmp_path / "out/lib").is_symlink()


def test_devices_are_left_out(tmp_path: Path) -> None:
    unpack(
        tar(
            Member(b"dev/null", tarformat.CHARACTER_DEVICE), Member(b"sda", tarformat.BLOCK_DEVICE)
        ),
        tmp_path / "out",
    )
    assert [p.name for p in (tmp_path / "out").rglob("*")] == ["dev"]


def test_attributes_that_would_steer_the_overlay_are_ignored(tmp_path: Path) -> None:
    names = (b"trusted.overlay.redirect", b"trusted.overlay.opaque", b"user.overlay.opaque",
             b"security.selinux", b"system.posix_acl_access")  # fmt: skip
    unpack(
        tar(Member(b"d/", tarformat.DIRECTORY, xattrs=dict.fromkeys(names, b"y"))), tmp_path / "out"
    )
    assert os.listxattr(tmp_path / "out/d") == []


def test_the_tar_is_read_to_its_end_for_the_digest(tmp_path: Path) -> None:
    data = tar(Member(b"f")) + b"trailing" * 1000
    source = unpack(data, tmp_path / "out")
    assert source.size == len(data)
