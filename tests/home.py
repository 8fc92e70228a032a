"""A home of its own for each test process. Loaded as a plugin, before Django reads settings."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ciserver.lib.keys import ensure_keys

# Where a run on PostgreSQL has its database; see tests/postgresql.py.
_postgresql = os.environ.get("TEST_POSTGRESQL_URL", "")
for _name in [name for name in os.environ if name.startswith("GANTRY_")]:
    del os.environ[_name]

HOME = Path(tempfile.mkdtemp(prefix="gantry-test-"))
HOME.chmod(0o711)
os.environ["GANTRY_HOME"] = str(HOME)
# A file, so that heartbeat threads and processes that tests start see the same rows.
os.environ["GANTRY_TEST_DATABASE"] = str(HOME / "db" / "test.sqlite3")
if _postgresql:
    os.environ["GANTRY_DATABASE_URL"] = _postgresql
ensure_keys(HOME / "keys")
for _folder in ("db", "run", "logs", "repositories", "mirrors", "static"):
    (HOME / _folder).mkdir()


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
