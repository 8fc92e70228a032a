"""``gantry test``: runs every test under pytest, beside no installation of this machine.

Tests of one ``xdist_group`` share a process (``--dist loadgroup``), which is how those that
start the whole service or drive the browser stay out of each other's way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ciserver.ops.launch import CHECKOUT


def run_tests(arguments: Sequence[str]) -> int:
    """pytest's own exit code. With arguments of one's own, they replace the usual ones."""
    home = Path(tempfile.mkdtemp(prefix="gantry-test-"))
    try:
        home.chmod(0o755)
        chosen = list(arguments) or ["-n", "2", "--dist", "loadgroup"]
        command = [sys.executable, "-m", "pytest", *chosen]
        return subprocess.run(command, cwd=CHECKOUT, env=environment(home), check=False).returncode
    finally:
        shutil.rmtree(home, ignore_errors=True)


def environment(home: Path) -> dict[str, str]:
    """No setting of the installation beside us reaches the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GANTRY_")}
    return {**kept, "GANTRY_HOME": str(home), "GANTRY_SECRET_KEY": "for tests only"}
