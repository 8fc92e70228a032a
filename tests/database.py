"""An SQLite file as ``manage.py migrate`` leaves it, made once for all processes of a test run."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
# Set by tests/conftest.py: a folder of this test run. Benchmarks have none.
shared: Path | None = None


def migrate(env: dict[str, str]) -> None:
    """Lay the tables out for ``env``, which names a home, and perhaps another database."""
    file = Path(env["GANTRY_HOME"]) / "db" / "gantry.sqlite3"
    if "GANTRY_DATABASE_URL" in env or shared is None:
        _migrate(env)
        return
    ready = shared / "migrated.sqlite3"
    with (shared / "migrated.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            _migrate(env)
            made = ready.with_suffix(f".{os.getpid()}")
            shutil.copy(file, made)
            made.rename(ready)
            return
    shutil.copy(ready, file)


def _migrate(env: dict[str, str]) -> None:
    command = [sys.executable, "manage.py", "migrate", "-v0", "--skip-checks"]
    subprocess.run(command, cwd=CHECKOUT, env=env, check=True)
