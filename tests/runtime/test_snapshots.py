"""Layers below, one fresh directory above, everybody's owners shifted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from runtime import snapshots
from runtime.errors import SpecError
from runtime.snapshots import LowerDir, mount_rootfs
from runtime.spec import IdRange
from runtime.state import StateDirectory
from tests.runtime.conftest import IDS, Sandboxes, mounts

pytestmark = pytest.mark.root


@pytest.fixture(params=["idmapped", "copied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With idmapped mounts, and as on a kernel that has none."""
    if request.param == "copied":
        monkeypatch.setattr(snapshots.idmapped, "supported", lambda path: False)
    return str(request.param)


def layer(area: Path, name: str, files: dict[str, str], base: int = 0) -> LowerDir:
    tree = area / name
    tree.mkdir()
    tree.chmod(0o755)
    os.chown(tree, base, base)
    for path, text in files.items():
        at = tree / path
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text)
        for made in (at, *[p for p in at.parents if p.is_relative_to(tree)]):
            os.chown(made, base, base)
    return LowerDir(tree, base)


def show(lowers: Sequence[LowerDir], area: Path, *, ids: IdRange = IDS):  # type: ignore[no-untyped-def]
    scratch = area / f"scratch-{len(list(area.iterdir()))}"
    scratch.mkdir()
    return mount_rootfs(lowers, ids=ids, scratch=scratch, target=area / "shown")


def names_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def owner_of(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


def test_natural_owners_appear_in_the_range(area: Path, way: str) -> None:
    low = layer(area, "low", {"etc/app": "1"})
    os.chown(low.path / "etc/app", 7, 9)
    with show([low], area) as root:
        assert owner_of(root.path / "etc/app") == (IDS.base + 7, IDS.base + 9)
        assert owner_of(root.path / "etc") == (IDS.base, IDS.base)
        assert (root.path / "etc/app").read_text() == "1"


def test_layers_of_three_bases_are_stacked_in_order(area: Path, way: str) -> None:
    lowers = [
        layer(area, "one", {"f": "one", "only-one": "1"}),
        layer(area, "two", {"f": "two"}, base=300_000),
        layer(area, "three", {"g": "three"}, base=IDS.base),
    ]
    with show(lowers, area) as root:
        assert [(root.path / n).read_text() for n in ("f", "g", "only-one")] == [
            "two",
            "three",
            "1",
        ]
        assert {owner_of(root.path / n) for n in ("f", "g", "only-one")} == {(IDS.base, IDS.base)}


def test_whiteouts_opaque_directories_links_and_attributes_are_kept(area: Path, way: str) -> None:
    bottom = layer(area, "bottom", {"gone": "x", "d/hidden": "x", "keep": "x"})
    top = layer(area, "top", {"d/new": "y", "first": "z"})
    os.mknod(top.path / "gone", 0o20000, os.makedev(0, 0))
    os.setxattr(top.path / "d", "trusted.overlay.opaque", b"y")
    os.link(top.path / "first", top.path / "second")
    (top.path / "link").symlink_to("/first")
    os.setxattr(top.path / "first", "user.note", b"n")
    (top.path / "first").chmod(0o4751)
    os.utime(top.path / "first", ns=(10**18, 10**18 + 5))
    with show([bottom, top], area) as root:
        assert not (root.path / "gone").exists() and (root.path / "keep").exists()
        assert names_in(root.path / "d") == ["new"]
        first = (root.path / "first").stat()
        assert first.st_ino == (root.path / "second").stat().st_ino and first.st_nlink == 2
        assert (first.st_mode & 0o7777, first.st_mtime_ns) == (0o4751, 10**18 + 5)
        assert os.getxattr(root.path / "first", "user.note") == b"n"
        assert (root.path / "link").readlink() == Path("/first")
        assert owner_of(root.path / "link") == (IDS.base, IDS.base)


def test_an_empty_root_can_be_written(area: Path) -> None:
    with show([], area) as root:
        (root.path / "file").write_text("x")
        assert (root.upper / "file").exists()
        assert owner_of(root.path) == (IDS.base, IDS.base)
        assert root.path.stat().st_mode & 0o7777 == 0o755


def test_an_empty_root_is_open_to_all_whatever_the_umask(area: Path) -> None:
    before = os.umask(0o077)
    try:
        with show([], area) as rootfs:
            assert rootfs.path.stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


def test_changes_are_in_the_upper_alone_and_whole(area: Path) -> None:
    low = layer(area, "low", {"d/a": "1", "d/b": "2", "e/f": "3"})
    with show([low], area) as root:
        os.chown(root.path / "d/a", IDS.base + 5, IDS.base + 5)
        (root.path / "d/b").unlink()
        with pytest.raises(OSError, match="cross-device"):
            (root.path / "e").rename(root.path / "renamed")  # so an upper is no riddle of redirects
        upper = root.upper
    assert (upper / "d/a").read_text() == "1"
    assert (upper / "d/b").is_char_device()
    assert names_in(upper) == ["d"]
    assert (low.path / "d/b").read_text() == "2"


def test_the_roots_own_mode_is_the_top_layers(area: Path) -> None:
    low = layer(area, "low", {"x": ""})
    low.path.chmod(0o751)
    with show([low], area) as root:
        assert root.path.stat().st_mode & 0o7777 == 0o751


def test_a_hundred_and_fifty_layers_can_be_mounted(area: Path) -> None:
    lowers = [layer(area, f"{'long-name-' * 8}{n}", {f"f{n}": ""}, IDS.base) for n in range(150)]
    with show(lowers, area) as root:
        assert len([name for name in names_in(root.path) if name.startswith("f")]) == 150


def test_a_hundred_idmapped_layers_can_be_mounted(area: Path) -> None:
    with show([layer(area, f"l{n}", {f"f{n}": ""}) for n in range(100)], area) as root:
        assert len([name for name in names_in(root.path) if name.startswith("f")]) == 100


def test_more_than_can_be_mounted_is_a_sentence(area: Path) -> None:
    lowers = [layer(area, f"l{n}", {}, IDS.base) for n in range(300)]
    with pytest.raises(SpecError, match="has 300 layers; at most 199"), show(lowers, area):
        pass


def test_a_layer_that_occurs_twice_counts_where_it_is_last(area: Path, way: str) -> None:
    twice = layer(area, "twice", {"f": "twice", "g": "twice"})
    between = layer(area, "between", {"f": "between", "h": "between"})
    with show([twice, between, twice], area) as root:
        assert [(root.path / name).read_text() for name in "fgh"] == ["twice", "twice", "between"]


def test_nothing_stays_mounted(area: Path) -> None:
    with show([layer(area, "low", {"f": ""})], area):
        assert len([line for line in mounts() if str(area) in line]) == 1
    assert [line for line in mounts() if str(area) in line] == []
    with pytest.raises(RuntimeError), show([layer(area, "low2", {"f": ""})], area):
        raise RuntimeError
    assert [line for line in mounts() if str(area) in line] == []


def test_mount_points_that_are_named_leave_no_stub(
    area: Path, busybox: LowerDir, state: StateDirectory, nothing_left: None
) -> None:
    from runtime.spec import MIB, BindMount, TmpfsMount

    secret = area / "secret"
    secret.write_text("s")
    scratch = area / "s"
    scratch.mkdir()
    named = ["/etc/cache/", "run/secrets/token"]
    with mount_rootfs(
        [busybox], ids=IDS, scratch=scratch, target=area / "r", mountpoints=named
    ) as root:
        given = (
            BindMount(source=secret, target="/run/secrets/token"),
            TmpfsMount(target="/etc/cache", size=MIB),
        )
        assert Sandboxes(state, root).sh("cat /run/secrets/token", mounts=given).out == "s"
        assert names_in(root.upper) == []


def test_a_step_that_swaps_a_stubs_parent_for_a_link_deletes_nothing(
    sandboxes: Sandboxes, area: Path
) -> None:
    from runtime.spec import MIB, TmpfsMount

    (area / "victim").mkdir()
    (area / "victim/empty").mkdir()
    script = f"umount /a/empty; mv /a /b && ln -s {area}/victim /a && ls -d /b/empty"
    swapped = sandboxes.sh(script, mounts=(TmpfsMount(target="/a/empty", size=MIB),))
    assert swapped.out == "/b/empty\n"
    assert (sandboxes.rootfs.upper / "a").readlink() == area / "victim"
    assert (area / "victim/empty").is_dir()


def test_files_written_in_a_sandbox_belong_to_its_range(sandboxes: Sandboxes) -> None:
    sandboxes.sh("touch /made; chown 1000:50 /made; echo x >> /bin/busybox-note")
    assert owner_of(sandboxes.rootfs.upper / "made") == (IDS.base + 1000, IDS.base + 50)
