"""``gantry cp`` out of a container that may be hostile: nothing is written outside the folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from ciserver.cli.unpack import unpack

REG, SYM, HARD, FIFO = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "sentinel").write_text("mine")
    return tmp_path / "out"


def packed(*rows: tuple[str, bytes, str]) -> tarfile.TarFile:
    """Rows of name, type, and the content or where a link points at."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, kind, more in rows:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o6755
            if kind == REG:
                member.size = len(more)
            else:
                member.linkname = more
            tar.addfile(member, io.BytesIO(more.encode()))
    whole.seek(0)
    return tarfile.open(fileobj=whole)


def test_files_directories_and_links_come_as_they_are(target: Path) -> None:
    rows = [("logs/a", REG, "1"), ("logs/now", SYM, "a"), ("logs/b", HARD, "logs/a")]
    assert unpack(packed(*rows), target) == ([str(target / "logs")], [])
    assert [(target / "logs" / name).read_text() for name in ("a", "now", "b")] == ["1", "1", "1"]
    assert (target / "logs/now").is_symlink()
    assert (target / "logs/a").stat().st_mode & 0o7777 == 0o755
    assert unpack(packed(("logs/a", REG, "2")), target)[1] == []
    assert (target / "logs/a").read_text() == "2"


@pytest.mark.parametrize(
    "rows",
    [
        [("../sentinel", REG, "theirs")],
        [("/tmp/gantry-cp-sentinel", REG, "theirs")],
        [("a", SYM, ".."), ("a/sentinel", REG, "theirs")],
        [("a", SYM, "../sentinel"), ("a", REG, "theirs")],
        [("d", SYM, "."), ("e", SYM, "d/.."), ("e/sentinel", REG, "theirs")],
        [("e", SYM, "d/.."), ("d", SYM, "."), ("e/sentinel", REG, "theirs")],
        [("a", HARD, "../sentinel"), ("a", REG, "theirs")],
        [("etc", SYM, "/etc"), ("etc/gantry-cp-sentinel", REG, "theirs")],
    ],
)
def test_nothing_gets_out(target: Path, rows: list[tuple[str, bytes, str]]) -> None:
    unpack(packed(*rows), target)
    assert (target.parent / "sentinel").read_text() == "mine"
    assert {path.name for path in target.parent.iterdir()} == {"out", "sentinel"}
    assert not Path("/tmp/gantry-cp-sentinel").exists()
    assert not Path("/etc/gantry-cp-sentinel").exists()
    for path in target.rglob("*"):
        assert path.resolve().is_relative_to(target.resolve()), path


def test_what_was_there_is_not_written_through(target: Path) -> None:
    target.mkdir()
    (target / "a").symlink_to("../sentinel")
    (target / "b").symlink_to("..")
    came, left_out = unpack(packed(("a", REG, "theirs"), ("b/sentinel", REG, "theirs")), target)
    assert (target.parent / "sentinel").read_text() == "mine"
    assert came == [str(target / "a")]
    assert left_out == [f"b/sentinel: it leads out of {target}."]


def test_what_is_left_out_is_named(target: Path) -> None:
    came, left_out = unpack(packed(("pipe", FIFO, ""), ("zone", SYM, "/etc/zone")), target)
    assert came == []
    assert left_out == [
        "pipe: it is no file, directory or link.",
        f"zone -> /etc/zone: it leads out of {target}.",
    ]
