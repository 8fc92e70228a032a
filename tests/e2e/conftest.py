from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service, running_service


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One installation for all end-to-end tests. The path is open to the user ``gantry``."""
    root = tmp_path_factory.mktemp("service")
    for folder in [root, *root.parents[:3]]:
        if folder != Path("/tmp"):
            folder.chmod(0o755)
    with running_service(root / "home") as running:
        yield running
