"""A folder of a process's own: what a killed one left goes, what a living one uses stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ciserver.lib.ownfolders import own_folder

DYING = """
import os, signal, sys
from pathlib import Path
from ciserver.lib.ownfolders import own_folder
with own_folder(Path(sys.argv[1]), "x-") as folder:
    (folder / "key").write_text("secret")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_is_its_owners_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    with own_folder(tmp_path, "x-") as folder:
        assert folder.stat().st_mode & 0o7777 == 0o700
        with own_folder(tmp_path, "x-") as other:
            assert folder.is_dir() and other.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_also_when_its_number_is_in_use_again(
    tmp_path: Path,
) -> None:
    subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], check=False, cwd=Path.cwd())
    (left,) = tmp_path.iterdir()
    again = left.rename(tmp_path / "x-1-abcdef")  # process 1 is always there
    other = tmp_path / "y-1-abcdef"
    other.mkdir()
    with own_folder(tmp_path, "x-"):
        assert not again.exists()
        assert other.exists()
