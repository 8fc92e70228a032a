"""Files go into and out of a running sandbox, and never anywhere else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.copying import copy_in, copy_out
from runtime.errors import SpecError
from tests.runtime.conftest import IDS, Sandboxes, wait_until
from tests.runtime.test_use import ID, ROOT, execute, running

pytestmark = pytest.mark.root


def test_files_folders_and_links_are_copied_both_ways(sandboxes: Sandboxes, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/file").write_bytes(b"\0binary\xff")
    (tree / "deep/file").chmod(0o4755)
    (tree / "link").symlink_to("/etc/shadow")
    with running(sandboxes):
        copy_in(sandboxes.state, ID, tree, "/tmp")
        _, said = execute(sandboxes, "cd /tmp/tree; stat -c '%a %u %n' deep/file; readlink link")
        copy_out(sandboxes.state, ID, "/tmp/tree", tmp_path / "back")
    assert said == "755 0 deep/file\n/etc/shadow\n"
    assert (tmp_path / "back/deep/file").read_bytes() == b"\0binary\xff"
    assert (tmp_path / "back/link").readlink() == Path("/etc/shadow")
    assert (tmp_path / "back/deep/file").stat().st_mode & 0o7777 == 0o755


def test_links_of_the_sandbox_lead_nowhere_outside(
    sandboxes: Sandboxes, area: Path, tmp_path: Path
) -> None:
    """The sentinel is checked by the fixture; links are followed inside the root only."""
    script = (
        f"ln -s {area} /tmp/out; ln -s /proc/1/root /tmp/root; ln -s /tmp/nowhere /tmp/file;"
        "ln -s ../../../../../.. /tmp/up; mkfifo /tmp/pipe; echo ready; sleep 60"
    )
    (tmp_path / "new").write_text("new")
    with running(sandboxes, script) as said:
        assert wait_until(lambda: b"ready" in b"".join(said))
        for path in ("/tmp/out/sentinel", "/tmp/root/bin/sh", "/tmp/pipe", "/proc/self/status"):
            with pytest.raises(SpecError):
                copy_out(sandboxes.state, ID, path, tmp_path / "x")
        for path in ("/tmp/out/sentinel", "/proc/sys/kernel/core_pattern", "/sys/x", "/tmp/root/x"):
            with pytest.raises(SpecError):
                copy_in(sandboxes.state, ID, tmp_path / "new", path)
        copy_in(sandboxes.state, ID, tmp_path / "new", "/tmp/up/tmp/inside")
        copy_in(sandboxes.state, ID, tmp_path / "new", "/tmp/file")  # the link is replaced
        assert execute(sandboxes, "cat /tmp/inside /tmp/file")[1] == "newnew"
        assert execute(sandboxes, "ls /tmp/nowhere")[0].exit_code != 0
    assert not (tmp_path / "x").exists()


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(
    sandboxes: Sandboxes, area: Path, tmp_path: Path
) -> None:
    (area / "secret").mkdir()
    (area / "secret/key").write_text("outside")
    script = (
        f"mkdir -p /tmp/a/real; echo inside > /tmp/a/real/key; ln -s {area}/secret /tmp/l; "
        "echo ready; while :; do mv /tmp/a/real /tmp/r; mv /tmp/l /tmp/a/real; "
        "mv /tmp/a/real /tmp/l; mv /tmp/r /tmp/a/real; done"
    )
    with running(sandboxes, script) as said:
        assert wait_until(lambda: b"ready" in b"".join(said))
        for number in range(60):
            target = tmp_path / f"copy{number}"
            copy_out(sandboxes.state, ID, "/tmp/a", target)
            key = target / "real/key"
            assert (
                target.joinpath("real").is_symlink()
                or not key.exists()
                or (key.read_text() == "inside\n")
            )


def test_too_much_is_refused_and_secrets_stay_inside(sandboxes: Sandboxes, tmp_path: Path) -> None:
    with running(
        sandboxes,
        "dd if=/dev/zero of=/tmp/big bs=1 count=1 seek=500000000 2>/dev/null; sleep 60",
        secrets=("/run/secrets/x",),
    ):
        with pytest.raises(SpecError, match="holds secrets"):
            copy_out(sandboxes.state, ID, "/bin/busybox", tmp_path)
        assert wait_until((sandboxes.rootfs.upper / "tmp/big").exists)
        with pytest.raises(SpecError, match="more to copy"):
            copy_out(sandboxes.state, ID, "/tmp/big", tmp_path, with_secrets=True, max_bytes=1000)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named_on_the_side_where_it_is(
    sandboxes: Sandboxes, tmp_path: Path
) -> None:
    (tmp_path / "here").touch()
    tries: list[tuple[Callable[[str], None], str]] = [
        (lambda id: copy_in(sandboxes.state, id, tmp_path / "nix", "/tmp"), "nix to copy"),
        (lambda id: copy_in(sandboxes.state, id, Path("/"), "/tmp"), "no / to copy"),
        (lambda id: copy_in(sandboxes.state, id, tmp_path / "here", "/nix/x"), "/nix/x can"),
        (lambda id: copy_out(sandboxes.state, id, "/nix", tmp_path), "/nix cannot"),
        (lambda id: copy_out(sandboxes.state, id, "/bin/sh", Path("/nix/x")), "/nix cannot"),
    ]
    with running(sandboxes):
        for attempt, words in tries:
            with pytest.raises(SpecError, match=words):
                attempt(ID)


def test_the_command_line_copies_both_ways(sandboxes: Sandboxes, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("words")

    def cp(*words: str) -> int:
        command = (sys.executable, "-m", "runtime", "cp", "--state", str(sandboxes.state.root))
        return subprocess.run([*command, *words], cwd=ROOT, check=False).returncode

    with running(sandboxes):
        assert cp(f"{tmp_path}/a", f"{ID}:/tmp/a") == 0
        assert cp(f"{ID}:/tmp/a", f"{tmp_path}/b") == 0
        assert cp(f"{tmp_path}/a", f"{tmp_path}/b") == 125
        upper = sandboxes.rootfs.upper / "tmp/a"
        assert (upper.read_text(), upper.stat().st_uid) == ("words", IDS.base)
    assert (tmp_path / "b").read_text() == "words"
