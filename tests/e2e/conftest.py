from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service, running_demo


@pytest.fixture(scope="package")
def service() -> Iterator[Service]:
    """One installation for all end-to-end tests: the demo's.

    Not below pytest's own folder, which each session that starts closes to other users: the
    web process is the user ``gantry``.
    """
    root = Path(tempfile.mkdtemp(prefix="gantry-e2e-"))
    root.chmod(0o755)
    try:
        with running_demo(root / "home") as running:
            yield running
    finally:
        shutil.rmtree(root, ignore_errors=True)
