"""What COPY names in a context, mostly with no file system at all."""

from __future__ import annotations

from pathlib import Path

from builders.context import Kind
from builders.context.folder import FolderContext
from builders.context.ignore import Ignore
from builders.context.tree import ContextTree
from builders.fakes import MemoryContext
from builders.steps.sources import ContextSource

FILES = {"a.txt": b"a", "d/one": b"1", "d/sub/two": b"2", "link": "d", "to-a": "a.txt"}


def source(ignored: bytes = b"") -> tuple[ContextSource, MemoryContext]:
    context = MemoryContext(FILES)
    return ContextSource(ContextTree(context, lambda: Ignore.parse(ignored))), context


def test_a_source_is_found_by_any_spelling() -> None:
    seen, _ = source()
    for spelling in ("d", "/d", "./d/", "x/../d", "../../d"):
        (found,) = seen.find(spelling)
        assert (found.path, found.folder) == ("d", True)
    assert seen.find("none") == []


def test_a_link_as_source_is_followed_and_keeps_its_own_name() -> None:
    seen, _ = source()
    (found,) = seen.find("to-a")
    assert (found.name, found.real, found.folder) == ("to-a", "a.txt", False)
    (found,) = seen.find("link")
    assert [item.path for item in seen.items(found, None)] == ["one", "sub", "sub/two"]


def test_looking_at_keys_reads_no_file() -> None:
    seen, context = source()
    (found,) = seen.find("d")
    seen.digest(found, None)
    assert context.reads == {}


def test_items_come_with_their_bytes_in_order() -> None:
    seen, context = source(b"d/one")
    (found,) = seen.find("d")
    items = [(item.path, item.kind, b"".join(item.chunks)) for item in seen.items(found, None)]
    assert items == [("sub", Kind.FOLDER, b""), ("sub/two", Kind.FILE, b"2")]
    assert context.reads == {"d/sub/two": 1}


def test_ignored_files_do_not_change_the_key() -> None:
    plain, _ = source()
    hidden, _ = source(b"a.txt")
    (here,), (there,) = plain.find("d"), hidden.find("d")
    assert plain.digest(here, None) == hidden.digest(there, None)
    (here,), (there,) = plain.find("."), hidden.find(".")
    assert plain.digest(here, None) != hidden.digest(there, None)


def test_hard_links_are_part_of_the_key(tmp_path: Path) -> None:
    for name in ("linked", "plain", "linked-elsewhere"):
        (tmp_path / name / "d").mkdir(parents=True)
        for file in ("d/a", "d/b", "outside"):
            (tmp_path / name / file).write_text("x")
    link(tmp_path / "linked/d/b", tmp_path / "linked/d/a")
    link(tmp_path / "linked-elsewhere/d/b", tmp_path / "linked-elsewhere/outside")
    keys = {path.name: key_of(path, "d") for path in tmp_path.iterdir()}
    assert keys["linked"] != keys["plain"] == keys["linked-elsewhere"]


def link(name: Path, other: Path) -> None:
    name.unlink()
    name.hardlink_to(other)


def key_of(folder: Path, path: str) -> str:
    context = FolderContext(folder)
    try:
        seen = ContextSource(ContextTree(context, lambda: Ignore.parse(b"")))
        (found,) = seen.find(path)
        return seen.digest(found, None)
    finally:
        context.close()


def test_a_link_that_leads_nowhere_is_explained() -> None:
    files = {"out": "../other/f", "abs": "/etc/passwd", "d/in": "gone", "to-out": "out"}
    seen = ContextSource(ContextTree(MemoryContext(files), lambda: Ignore.parse(b"")))
    outside = "is a symbolic link to {}, outside the build context: put the file itself there."
    assert seen.broken_link("out") == f"out {outside.format('../other/f')}"
    assert seen.broken_link("abs") == f"abs {outside.format('/etc/passwd')}"
    assert seen.broken_link("to-out") == f"out {outside.format('../other/f')}"
    assert seen.broken_link("d/in") == (
        "d/in is a symbolic link to gone, which the build context does not have."
    )
    assert seen.broken_link("none") == ""
