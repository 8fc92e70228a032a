"""Layers that want out: each is refused or kept inside, and the sentinel outside is untouched."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.images import tarformat
from builders.images.digests import OCI_LAYER, Descriptor, sha256
from builders.images.extract import extract_tar
from builders.images.layers import LayerLimits, LayerTooBig
from builders.images.store import Store
from builders.images.streams import HashingReader, TarStream
from builders.images.tarformat import BadTar, Member
from runtime import syscalls
from runtime.removal import remove_path
from tests.builders.images import trees
from tests.builders.images.trees import nest

pytestmark = pytest.mark.root

DIR, LINK, HARD = tarformat.DIRECTORY, tarformat.SYMLINK, tarformat.HARD_LINK
PAYLOAD = b"pwned"


@pytest.fixture
def jail(tmp_path: Path) -> Iterator[Path]:
    """``jail/tree`` is unpacked into; everything beside it must stay as it is."""
    jail = tmp_path / "jail"
    (jail / "tree").mkdir(parents=True)
    (jail / "outside").mkdir(mode=0o750)
    (jail / "sentinel").write_text("untouched")
    (jail / "sentinel").chmod(0o640)
    before = state(jail)
    yield jail
    assert state(jail) == before


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def state(jail: Path) -> object:
    return [
        (path.name, path.lstat().st_ino, path.lstat().st_mode, path.lstat().st_nlink,
         path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else names_in(path))
        for path in (jail / "sentinel", jail / "outside")
    ]  # fmt: skip


def tar(*members: Member) -> bytes:
    return trees.tar(*members, content=PAYLOAD)


def unpack(data: bytes, jail: Path, limits: LayerLimits | None = None) -> None:
    caps = limits or LayerLimits()
    source = TarStream(HashingReader(io.BytesIO(data), limit=len(data)), "none", caps)
    extract_tar(source, jail / "tree", base=0, limits=caps)


def absolute(jail: Path, name: str) -> bytes:
    return os.fsencode(jail / name)


REFUSED = {
    "dot-dot": [Member(b"../sentinel")],
    "dot-dot inside": [Member(b"a/../../sentinel")],
    "absolute with dot-dot": [Member(b"/../sentinel")],
    "directory dot-dot": [Member(b"..", DIR, mode=0)],
    "hard link dot-dot": [Member(b"x", HARD, link=b"../sentinel")],
    "hard link to a directory": [Member(b"d/", DIR), Member(b"x", HARD, link=b"d")],
    "hard link to nothing": [Member(b"x", HARD, link=b"y")],
    "hard link to the root": [Member(b"x", HARD, link=b"/")],
    "hard link through a link out": [
        Member(b"up", LINK, link=b".."),
        Member(b"x", HARD, link=b"up/sentinel"),
    ],
    "file below a file": [Member(b"f"), Member(b"f/g")],
    "whiteout of dot-dot": [Member(b".wh...")],
    "whiteout of dot": [Member(b".wh..")],
    "whiteout of nothing": [Member(b".wh.")],
    "opaque root": [Member(b".wh..wh..opq")],
    "link to itself": [Member(b"l", LINK, link=b"l"), Member(b"l/x")],
    "name too long": [Member(b"n" * 256)],
    "path too long": [Member(b"d/" * 2100 + b"x")],
    "unknown type": [Member(b"x", b"V")],
    "sparse": [Member(b"x", b"S")],
    "impossible owner": [Member(b"x", uid=2**32)],
    "link without target": [Member(b"x", LINK, link=b"")],
    "link target too long": [Member(b"x", LINK, link=b"t" * 5000)],
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str, jail: Path) -> None:
    with pytest.raises(BadTar):
        unpack(tar(*REFUSED[name]), jail)


def test_a_zero_byte_in_a_name_is_refused(jail: Path) -> None:
    for key in (b"path", b"linkpath"):
        record = tarformat._pax_record(key, b"a\0b")
        header = Member(b"pax", tarformat.PAX, size=len(record))
        data = tarformat.encode(header) + record + bytes(tarformat.padding(len(record)))
        with pytest.raises(BadTar, match="zero byte"):
            unpack(data + tar(Member(b"x", LINK, link=b"y")), jail)


def kept_inside(jail: Path) -> dict[str, list[Member]]:
    out, sentinel = absolute(jail, "outside"), absolute(jail, "sentinel")
    return {
        "absolute name": [Member(sentinel)],
        "link then write through it": [
            Member(b"l", LINK, link=sentinel),
            Member(b"l"),
        ],
        "directory link then write below": [
            Member(b"l", LINK, link=out),
            Member(b"l/x"),
        ],
        "relative link out": [Member(b"l", LINK, link=b"../" * 30 + out), Member(b"l/x")],
        "chain of links": [
            Member(b"a", LINK, link=b"b"),
            Member(b"b", LINK, link=b"c/.."),
            Member(b"c", LINK, link=b".."),
            Member(b"a/outside/x"),
        ],
        "long-named chain": [
            *(Member(bytes([97 + n]) * 240, LINK, link=b"../" * 20) for n in range(16)),
            Member(b"/".join(bytes([97 + n]) * 240 for n in range(16)) + b"/outside/x"),
        ],
        "magic link": [Member(b"l", LINK, link=b"/proc/self/root"), Member(b"l/x")],
        "magic cwd": [Member(b"l", LINK, link=b"/proc/self/cwd"), Member(b"l/x")],
        "hard link to a link, then write": [
            Member(b"l", LINK, link=sentinel),
            Member(b"h", HARD, link=b"l"),
            Member(b"h"),
        ],
        "chmod through a link": [Member(b"l", LINK, link=out), Member(b"l/", DIR, mode=0o777)],
        "directory time through a link": [
            Member(b"d/", DIR, mtime=10**9),
            Member(b"d", LINK, link=out),
        ],
        "parent swapped for a link while in use": [
            Member(b"d/", DIR),
            Member(b"d/a"),
            Member(b"d", LINK, link=out),
            Member(b"d/b"),
        ],
        "removal through a link": [
            Member(b"d", LINK, link=b"../"),
            Member(b"d", DIR),
            Member(b"d"),
        ],
        "whiteout through a link": [Member(b"l", LINK, link=b".."), Member(b"l/.wh.sentinel")],
        "opaque through a link": [Member(b"l", LINK, link=out), Member(b"l/.wh..wh..opq")],
        "device": [Member(b"d", tarformat.BLOCK_DEVICE), Member(b"e", tarformat.CHARACTER_DEVICE)],
    }


KEPT = list(kept_inside(Path("/")))


@pytest.mark.parametrize("name", KEPT)
def test_it_stays_inside(name: str, jail: Path) -> None:
    with contextlib.suppress(BadTar):
        unpack(tar(*kept_inside(jail)[name]), jail)
    for path in (jail / "tree").rglob("*"):
        mode = path.lstat().st_mode
        assert not stat.S_ISBLK(mode)
        assert not stat.S_ISCHR(mode) or path.lstat().st_rdev == 0


links = st.sampled_from(
    (b"..", b"/", b".", b"a", b"b", b"c/d", b"../..", b"/a", b"a/../..", b"/proc/self/root/a")
)
paths = st.sampled_from(
    (b"a", b"b", b"c", b"a/b", b"a/c", b"b/d", b"c/d", b"a/b/c", b".wh.a", b"b/.wh.c")
)
hostile = st.builds(
    Member,
    name=paths,
    type=st.sampled_from((tarformat.REGULAR, DIR, LINK, HARD, tarformat.FIFO)),
    link=links,
    mode=st.sampled_from((0, 0o755, 0o4777)),
)


@given(st.lists(hostile, min_size=2, max_size=12))
@settings(max_examples=150, deadline=None)
def test_no_mix_of_links_and_files_leads_out(members: list[Member]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        jail = Path(folder)
        (jail / "tree").mkdir()
        (jail / "a").mkdir()
        (jail / "a/b").write_text("untouched")
        before = [p.lstat() for p in (jail / "a", jail / "a/b")]
        with contextlib.suppress(BadTar):
            unpack(tar(*members), jail)
        after = [p.lstat() for p in (jail / "a", jail / "a/b")]
        assert [(s.st_ino, s.st_mode, s.st_mtime_ns, s.st_nlink) for s in after] == [
            (s.st_ino, s.st_mode, s.st_mtime_ns, s.st_nlink) for s in before
        ]
        assert names_in(jail) == ["a", "tree"]
        assert names_in(jail / "a") == ["b"]
        remove_path(jail / "tree")


def test_too_many_files_are_refused_while_they_stream(jail: Path) -> None:
    data = tar(*(Member(b"%d" % n) for n in range(200)))
    with pytest.raises(LayerTooBig, match="more than 100 files"):
        unpack(data, jail, LayerLimits(files=100))
    assert len(names_in(jail / "tree")) == 100


def test_a_member_that_claims_a_terabyte_is_refused_by_the_size_limit(jail: Path) -> None:
    header = tarformat.encode(Member(b"big", size=1 << 40))
    with pytest.raises(LayerTooBig, match="exceeds the size limit of 32768 MiB"):
        unpack(header + bytes(4096), jail)
    assert names_in(jail / "tree") == []


BOMBS: dict[str, tuple[bytes, LayerLimits]] = {
    "a terabyte that is claimed": (
        tarformat.encode(Member(b"big", size=1 << 40)) + bytes(4096),
        LayerLimits(),
    ),
    "zeros": (
        trees.tar(Member(b"z", size=8 << 20), content=bytes(8 << 20)),
        LayerLimits(size=4 << 20),
    ),
    "zeros, a thousand fold": (
        trees.tar(Member(b"z", size=8 << 20), content=bytes(8 << 20)),
        LayerLimits(ratio=100, ratio_from=1 << 20),
    ),
    "many files": (tar(*(Member(b"%d" % n) for n in range(300))), LayerLimits(files=200)),
    "many folders": (
        tar(*(Member(b"d%d/d" % n, type=DIR) for n in range(300))),
        LayerLimits(files=200),
    ),
    "many folders that nothing but names tells of": (
        tar(*(Member(b"%d/" % n + b"d/" * 90 + b"f") for n in range(30))),
        LayerLimits(files=200),
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_bomb_leaves_a_byte_or_a_file_on_the_disk(bomb: str, small_disk: Path) -> None:
    data, limits = BOMBS[bomb]
    blob = gzip.compress(data)
    store = Store(small_disk / "store")
    announced = Descriptor(f"{OCI_LAYER}+gzip", sha256(blob), len(blob))
    left = []
    for _ in range(2):
        with pytest.raises(LayerTooBig):
            store.import_layer(
                io.BytesIO(blob), expect=announced, diff_id=sha256(data), limits=limits
            )
        left.append(free(small_disk))
    assert left[0] == left[1], "the first one leaves its lock files, and none leaves more"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of the test's own, so that nobody else's files count."""
    folder = tmp_path / "disk"
    folder.mkdir()
    syscalls.mount("tmpfs", folder, "tmpfs", 0, "size=64m,nr_inodes=5000")
    (folder / "store").mkdir()
    yield folder
    syscalls.umount2(folder)


def free(disk: Path) -> tuple[int, int]:
    """(blocks, inodes)."""
    figures = os.statvfs(disk)
    return figures.f_bfree, figures.f_ffree


def test_a_file_that_ends_in_the_middle_is_refused(jail: Path) -> None:
    data = tar(Member(b"f"))
    for cut in (1, 511, 512, 514, 1023):
        with pytest.raises(BadTar):
            unpack(data[:cut], jail)


def test_what_is_nested_without_bottom_can_be_removed_again(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    nest(tmp_path / "top", 3000)
    remove_path(tmp_path / "top")
    assert not (tmp_path / "top").exists()


def test_removal_follows_no_link(jail: Path) -> None:
    (jail / "tree/out").symlink_to(jail / "outside")
    (jail / "tree/d").mkdir()
    (jail / "tree/d/out").symlink_to(jail / "sentinel")
    remove_path(jail / "tree")
    assert not (jail / "tree").exists()


def test_removal_enters_no_mount(jail: Path) -> None:
    (jail / "tree/mounted").mkdir()
    syscalls.mount(str(jail / "outside"), jail / "tree/mounted", "none", syscalls.MS_BIND)
    try:
        with pytest.raises(OSError, match="Invalid cross-device link"):
            remove_path(jail / "tree")
    finally:
        syscalls.umount2(jail / "tree/mounted")
