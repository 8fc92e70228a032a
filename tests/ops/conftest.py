"""An installation's home of its own for each test, below a folder that anyone may walk through."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ciserver.config import Config
from ciserver.ops.layout import make_folders, make_user


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gantry-ops-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "home"


@pytest.fixture
def config(home: Path) -> Config:
    return Config.from_env(
        {
            "GANTRY_HOME": str(home),
            "GANTRY_PORT": str(free_port()),
            "GANTRY_REGISTRY": f"127.0.0.1:{free_port()}",
        }
    )


@pytest.fixture
def prepared(config: Config) -> Config:
    """With the user and the folders made; needs root."""
    make_user(config.home)
    make_folders(config.home)
    return config
