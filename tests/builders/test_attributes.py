"""Extended attributes travel with COPY --from and through archives of layers, capabilities too."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.plan import host_platform
from builders.registry import Registry
from tests.builders.conftest import Builder
from tests.builders.registry.conftest import RegistryProcess

pytestmark = pytest.mark.root
Project = Callable[[Mapping[str, str]], Path]
# cap_net_bind_service=ep, as setcap writes it (revision 2, no namespace).
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


@pytest.fixture
def marked(builder: Builder, tmp_path: Path) -> str:
    tree = tmp_path / "marked"
    (tree / "d").mkdir(parents=True)
    (tree / "d/file").write_text("x")
    (tree / "d/server").write_text("y")
    os.setxattr(tree / "d", "user.folder", b"1")
    os.setxattr(tree / "d/file", "user.note", b"a\0b")
    os.setxattr(tree / "d/server", "security.capability", CAPABILITY)
    layer = builder.store.commit_tree(tree, base=0, epoch=1_600_000_000)
    config = ImageConfig(architecture=host_platform().partition("/")[2])
    builder.store.save_image(config, [layer], names=[Reference.parse("marked:1")])
    return "marked:1"


def attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def is_capability(value: bytes) -> bool:
    """Whatever revision it has on this disk: the same rights."""
    return value[4:12] == CAPABILITY[4:12]


def test_copies_of_a_folder_and_of_a_file_have_them(
    builder: Builder, project: Project, marked: str
) -> None:
    text = f"FROM scratch\nCOPY --from={marked} /d /copy/\nCOPY --from={marked} /d/server /s\n"
    image = builder.one(project({"Dockerfile": text}), no_cache=True)
    folder, single = (layer.tree for layer in image.layers)
    assert attributes(folder / "copy/file")["user.note"] == b"a\0b"
    assert is_capability(attributes(folder / "copy/server")["security.capability"])
    assert is_capability(attributes(single / "s")["security.capability"])


def test_another_store_that_pulls_the_image_has_them_too(
    builder: Builder, project: Project, marked: str, tmp_path: Path
) -> None:
    from builders.images.store import Store

    text = f"FROM scratch\nCOPY --from={marked} /d /copy/\n"
    image = builder.one(project({"Dockerfile": text}))
    (tmp_path / "registry").mkdir()
    server = RegistryProcess(tmp_path / "registry")
    try:
        name = Reference.parse(f"{server.host}/marked:2")
        with Registry(server.host) as client:
            client.push(image, name, builder.store)
            pulled = client.pull(name, Store(tmp_path / "other"))
    finally:
        server.close()
    tree = pulled.layers[0].tree
    assert attributes(tree / "copy/file")["user.note"] == b"a\0b"
    assert attributes(tree / "copy/server")["security.capability"] == CAPABILITY
