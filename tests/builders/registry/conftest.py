"""Real registries for tests: Debian's docker-registry on loopback, open or with tokens."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.registry import Registry
from tests.builders.images.test_store import IDS, a_layer
from tests.builders.images.trees import EPOCH


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RegistryProcess:
    """One docker-registry. ``auth`` is the YAML of its auth section."""

    def __init__(self, folder: Path, *, auth: str = "", port: int = 0) -> None:
        self.host = f"127.0.0.1:{port or free_port()}"
        config = folder / "registry.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
            f"http: {{addr: '{self.host}'}}\n{auth}"
        )
        self._log = (folder / "registry.log").open("w")
        self._process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=self._log, stderr=self._log
        )
        for _ in range(200):
            if self._answers():
                return
            time.sleep(0.05)
        self.close()
        raise AssertionError((folder / "registry.log").read_text())

    def _answers(self) -> bool:
        address, port = self.host.split(":")
        try:
            socket.create_connection((address, int(port))).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The host of a registry that lets anyone in."""
    process = RegistryProcess(tmp_path_factory.mktemp("registry"))
    yield process.host
    process.close()


@pytest.fixture
def client(registry: str) -> Iterator[Registry]:
    with Registry(registry, patience=10) as client:
        yield client


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store(tmp_path / "other")


@pytest.fixture
def image(store: Store) -> Image:
    """Two layers: the second removes and adds."""
    base = a_layer(store, "hello")
    with store.rootfs([base], ids=IDS) as rootfs:
        (rootfs.path / "etc/motd").unlink()
        (rootfs.path / "etc/issue").write_text("new " * 1000)
        (rootfs.path / "etc/link").symlink_to("issue")
        for name in ("issue", "link"):
            path = rootfs.path / "etc" / name
            os.chown(path, IDS.base + 1, IDS.base + 2, follow_symlinks=False)
        change = store.commit_upper(rootfs.upper, IDS, epoch=EPOCH)
    config = ImageConfig(architecture="amd64", cmd=("/bin/true",), labels={"a": "b"})
    return store.save_image(config, [base, change], names=[Reference.parse("team/app:v1")])
