"""A tree becomes a tar: deterministic, with natural owners, and it says what the tree says."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from builders.errors import StoreError
from builders.images.layers import LayerLimits, LayerTooBig, UnlayerableFile
from builders.images.layerstore import EMPTY_DIFF_ID
from tests.builders.images.trees import EPOCH, describe, digest_of, nest, tar_of, whiteout, written

pytestmark = pytest.mark.root
BASE = 1_000_000


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def access_list_for_user_1() -> bytes:
    """acl(5) as the kernel stores it: owner, user 1, group, mask, others."""
    nobody = 0xFFFFFFFF
    rows = ((1, 6, nobody), (2, 7, 1), (4, 4, nobody), (16, 7, nobody), (32, 4, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)


def test_an_empty_tree_is_the_empty_layer_everybody_knows(tmp_path: Path) -> None:
    assert digest_of(tmp_path) == EMPTY_DIFF_ID


def test_entries_are_sorted_whatever_order_they_were_made_in(tmp_path: Path) -> None:
    for name in ("b", "a", "ä", "A", "a.b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    names = list(members(tar_of(tmp_path)))
    assert names == ["A", "A/x", "a", "a/x", "a.b", "a.b/x", "b", "b/x", "ä", "ä/x"]


def test_the_same_content_gives_the_same_digest_at_another_time_and_base(tmp_path: Path) -> None:
    digests = []
    for base in (0, BASE, 5 * BASE):
        tree = tmp_path / str(base)
        (tree / "d").mkdir(parents=True)
        (tree / "d/f").write_text("x")
        (tree / "d/l").symlink_to("f")
        for path in (tree / "d", tree / "d/f", tree / "d/l"):
            os.chown(path, base + 7, base + 8, follow_symlinks=False)
        digests.append(digest_of(tree, base=base))
    assert len(set(digests)) == 1


def test_times_are_clamped_in_the_tar_and_in_the_tree(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name, time in (("d/new", EPOCH + 10), ("d/old", EPOCH - 10)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, ns=(time * 10**9 + 5, time * 10**9 + 5))
    (tmp_path / "d/link").symlink_to("new")
    found = members(tar_of(tmp_path))
    assert [found[n].mtime for n in ("d", "d/new", "d/link", "d/old")] == [EPOCH] * 3 + [EPOCH - 10]
    for name, member in found.items():
        assert (tmp_path / name).lstat().st_mtime_ns == member.mtime * 10**9, name
    assert tar_of(tmp_path) == tar_of(tmp_path, epoch=None)


def test_owners_and_every_mode_bit_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "su"
    path.write_text("x")
    os.chown(path, BASE + 1000, BASE + 65535)
    path.chmod(0o6711)
    member = members(tar_of(tmp_path, base=BASE))["su"]
    assert (member.uid, member.gid, member.mode) == (1000, 65535, 0o6711)


def test_a_file_of_another_owner_than_the_sandbox_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "stray").touch()
    with pytest.raises(StoreError, match="/stray belongs to host user 0:0"):
        tar_of(tmp_path, base=BASE)


def test_hard_links_are_links_to_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("shared")
    (tmp_path / "d").mkdir()
    os.link(tmp_path / "a", tmp_path / "d/b")
    found = members(tar_of(tmp_path))
    assert found["d/b"].islnk()
    assert found["d/b"].linkname == "a"


def test_a_link_whose_other_name_is_elsewhere_is_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "outside").write_text("x")
    os.link(tmp_path / "outside", tmp_path / "tree/inside")
    assert members(tar_of(tmp_path / "tree"))["inside"].isreg()


def test_whiteouts_and_opaque_directories_are_spelled_as_image_spec_spells_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/kept").touch()
    os.setxattr(tmp_path / "d", "trusted.overlay.opaque", b"y")
    os.setxattr(tmp_path / "d", "trusted.overlay.origin", b"\0")
    whiteout(tmp_path / "gone")
    found = members(tar_of(tmp_path))
    assert list(found) == ["d", "d/.wh..wh..opq", "d/kept", ".wh.gone"]
    assert all(found[name].isreg() and found[name].size == 0 for name in found if ".wh." in name)
    assert not found["d"].pax_headers


@pytest.mark.parametrize("xattr", ["trusted.overlay.redirect", "trusted.overlay.metacopy"])
def test_an_overlay_feature_that_no_layer_can_express_is_an_error(
    tmp_path: Path, xattr: str
) -> None:
    (tmp_path / "moved").mkdir()
    os.setxattr(tmp_path / "moved", xattr, b"/etc")
    with pytest.raises(StoreError, match=f"/moved carries {xattr}"):
        tar_of(tmp_path)


def test_a_capability_set_in_a_user_namespace_is_written_without_its_namespace(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ping"
    path.write_text("x")
    os.chown(path, BASE, BASE)
    bits = struct.pack("<IIII", 1 << 13, 0, 0, 0)
    version_3 = struct.pack("<I", 0x03000001) + bits + struct.pack("<I", BASE)
    os.setxattr(path, "security.capability", version_3)
    value = members(tar_of(tmp_path, base=BASE))["ping"].pax_headers[
        "SCHILY.xattr.security.capability"
    ]
    assert value.encode("utf-8", "surrogateescape") == struct.pack("<I", 0x02000001) + bits


def test_user_attributes_are_layered_and_what_cannot_be_is_taken_off_the_tree(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    os.setxattr(path, "user.note", b"\0\xff")
    os.setxattr(path, "user.overlay.redirect", b"/etc")
    os.setxattr(path, "trusted.secret", b"1")
    os.setxattr(path, "system.posix_acl_access", access_list_for_user_1())
    headers = members(tar_of(tmp_path))["f"].pax_headers
    assert list(headers) == ["SCHILY.xattr.user.note"]
    assert os.listxattr(path) == ["user.note"]


def test_sockets_and_devices_leave_the_tree(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "d/socket"))
    os.mknod(tmp_path / "d/null", 0o20666, os.makedev(1, 3))
    os.mkfifo(tmp_path / "d/fifo")
    found = members(tar_of(tmp_path))
    assert list(found) == ["d", "d/fifo"]
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["fifo"]
    assert (tmp_path / "d").stat().st_mtime == EPOCH


def test_a_file_whose_name_would_mean_a_removal_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".wh.passwd").touch()
    with pytest.raises(UnlayerableFile, match=r"/\.wh\.passwd cannot be kept"):
        tar_of(tmp_path)


def test_a_tree_without_bottom_is_refused(tmp_path: Path) -> None:
    nest(tmp_path, 500)
    with pytest.raises(UnlayerableFile, match="nested more than 400"):
        tar_of(tmp_path)


def test_limits_hold_before_a_byte_too_many_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(LayerTooBig, match="/sparse the layer exceeds its size limit of 1 MiB"):
        written(tmp_path, LayerLimits(size=1 << 20))
    (tmp_path / "sparse").unlink()
    for number in range(11):
        (tmp_path / str(number)).touch()
    with pytest.raises(LayerTooBig, match="more than 10 files"):
        written(tmp_path, LayerLimits(files=10))


def test_gnu_tar_unpacks_what_the_tree_was(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    out.mkdir()
    deep = tree / ("long-" * 12) / ("name-" * 15) / "ünï"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"x" * 5000)
    (deep / "link").symlink_to("../" * 40 + "t" * 120)
    (deep / ("n" * 255)).touch()
    os.setxattr(deep / "file", "user.note", b"kept")
    os.chown(deep / "file", 12345, 54321)
    (tmp_path / "tar").write_bytes(tar_of(tree))
    subprocess.run(
        ["tar", "--xattrs", "-xpf", tmp_path / "tar", "-C", out], check=True, capture_output=True
    )
    assert describe(out) == describe(tree)
