from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service, running_service


@pytest.fixture(scope="package")
def service() -> Iterator[Service]:
    """One installation for all end-to-end tests.

    Not below pytest's own folder, which each session that starts closes to other users: the
    web process is the user ``gantry``.
    """
    root = Path(tempfile.mkdtemp(prefix="gantry-e2e-"))
    root.chmod(0o755)
    try:
        with running_service(root / "home") as running:
            yield running
    finally:
        shutil.rmtree(root, ignore_errors=True)
