"""``gantry test``: runs every test under pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from ciserver.ops.launch import CHECKOUT

# ``tests.groups`` keeps what would disturb one another in one process.
EVERYTHING = ("-p", "tests.groups", "-n", "4")


def run_tests(arguments: Sequence[str]) -> int:
    """pytest's own exit code. Arguments stand in place of the usual ones."""
    command = [sys.executable, "-m", "pytest", *(arguments or EVERYTHING)]
    # Else each process, and whatever they start, compiles all tests for itself.
    env = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(command, cwd=CHECKOUT, env=env, check=False).returncode
