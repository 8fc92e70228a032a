"""Programs started from a sealed copy in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.sealed import sealed


def test_the_copy_runs_and_nobody_can_write_to_it(tmp_path: Path) -> None:
    path = sealed(Path("/bin/echo"))
    assert path == sealed(Path("/bin/echo"))
    assert subprocess.check_output(["echo", "hello"], executable=path) == b"hello\n"
    assert Path(path).read_bytes() == Path("/bin/echo").read_bytes()
    with pytest.raises(PermissionError):
        os.ftruncate(int(path.rpartition("/")[2]), 0)


def test_a_program_that_was_replaced_is_copied_anew(tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy2("/bin/true", program)
    first = sealed(program)
    shutil.copy2("/bin/false", program)
    assert sealed(program) != first
    assert subprocess.run([program], executable=sealed(program), check=False).returncode == 1


def test_what_is_not_there_keeps_its_name(tmp_path: Path) -> None:
    assert sealed(tmp_path / "none") == str(tmp_path / "none")
