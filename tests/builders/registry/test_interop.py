"""Other engines read what we push, and we read what they push: the trees are the same."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.registry import Registry
from tests.builders.images.test_store import IDS
from tests.builders.images.trees import EPOCH, describe

pytestmark = pytest.mark.root

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


class Podman:
    """Podman with its whole state in one folder."""

    def __init__(self, folder: Path) -> None:
        self._state = [
            "podman", "--root", str(folder / "root"), "--runroot", str(folder / "run"),
            "--storage-driver", "vfs", "--events-backend", "none",
        ]  # fmt: skip

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> str:
        done = subprocess.run(
            [*self._state, *arguments], capture_output=True, input=stdin, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()


@pytest.fixture
def podman() -> Iterator[Podman]:
    # Podman wants a run directory of at most 50 characters.
    with tempfile.TemporaryDirectory(prefix="podman-") as folder:
        yield Podman(Path(folder))


@pytest.fixture
def rich(store: Store) -> Image:
    """Everything a layer can carry, then a layer that removes and replaces much of it."""
    with store.rootfs([], ids=IDS) as rootfs:
        fill(rootfs.path)
        first = store.commit_upper(rootfs.upper, IDS, epoch=EPOCH)
    with store.rootfs([first], ids=IDS) as rootfs:
        change(rootfs.path)
        second = store.commit_upper(rootfs.upper, IDS, epoch=EPOCH)
    config = ImageConfig(architecture="amd64", cmd=("/bin/sh",), env=("A=b",), user="1000")
    return store.save_image(config, [first, second], names=[Reference.parse("rich:v1")])


def fill(root: Path) -> None:
    for folder in ("bin", "etc/conf.d", "var/cache/old", "tmp", "ünï cödé"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "bin/su").write_bytes(b"\x7fELF" + bytes(50_000))
    os.link(root / "bin/su", root / "bin/su-again")
    (root / "bin/ping").write_text("ping")
    (root / "etc/motd").write_text("hello")
    (root / "etc/conf.d" / ("n" * 200)).write_text("long name")
    (root / "var/cache/old/x").write_text("x")
    (root / "sh").symlink_to("bin/../bin/su")
    for path in sorted(root.rglob("*")):
        os.chown(path, IDS.base + 3, IDS.base + 4, follow_symlinks=False)
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    (root / "bin/su").chmod(0o6755)
    version_3 = struct.pack("<I", 0x03000001) + CAPABILITY[4:] + struct.pack("<I", IDS.base)
    os.setxattr(root / "bin/ping", "security.capability", version_3)


def change(root: Path) -> None:
    (root / "etc/motd").unlink()
    (root / "var/cache/old/x").unlink()
    (root / "var/cache/old").rmdir()
    (root / "var/cache/old").mkdir()  # opaque
    (root / "var/cache/old/y").write_text("y")
    (root / "sh").unlink()
    (root / "sh").mkdir()
    (root / "etc/issue").write_text("new")
    for name in ("var/cache/old", "var/cache/old/y", "sh", "etc/issue"):
        os.chown(root / name, IDS.base, IDS.base)


def flat(store: Store, image: Image) -> object:
    with store.rootfs(image.layers, ids=IDS) as rootfs:
        return compared(describe(rootfs.path, base=IDS.base), IDS.base)


def compared(found: object, base: int = 0) -> object:
    """Capabilities in one spelling; mount points that our root file systems bring are left out."""
    assert isinstance(found, dict)
    kept = {}
    for name, value in found.items():
        if name in ("dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf"):
            continue
        *rest, xattrs = value
        kept[name] = (*rest, tuple(key for key, _ in xattrs if not key.endswith(".opaque")))
    return kept


def test_podman_pulls_what_we_push_and_sees_the_same_tree(
    registry: str, client: Registry, rich: Image, store: Store, podman: Podman
) -> None:
    name = f"{registry}/interop/ours:v1"
    pushed = client.push(rich, Reference.parse(name), store)
    podman("pull", "-q", "--tls-verify=false", f"{registry}/interop/ours@{pushed.digest}")
    image_id = podman("images", "-q", "--no-trunc")
    assert image_id == rich.id
    config = json.loads(podman("image", "inspect", image_id))[0]
    assert config["Config"]["Cmd"] == ["/bin/sh"]
    assert config["Digest"] == pushed.digest
    mounted = Path(podman("image", "mount", image_id))
    try:
        assert os.getxattr(mounted / "bin/ping", "security.capability") == CAPABILITY
        assert compared(describe(mounted)) == flat(store, rich)
    finally:
        podman("image", "unmount", image_id)


@pytest.mark.parametrize("shape", ["oci", "v2s2", "zstd"])
def test_we_pull_what_podman_pushes_and_see_the_same_tree(
    shape: str, registry: str, client: Registry, podman: Podman, other: Store, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "etc").mkdir()
    (tree / "etc/motd").write_text("from podman")
    (tree / "etc/sudo").write_text("x")
    os.chown(tree / "etc/sudo", 5, 6)
    (tree / "etc/sudo").chmod(0o4750)
    os.link(tree / "etc/sudo", tree / "etc/sudo2")
    (tree / "link").symlink_to("/etc/motd")
    for path in tree.rglob("*"):
        os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)
    tar = subprocess.run(["tar", "-C", tree, "-c", "."], capture_output=True, check=True).stdout
    podman(
        "import", "-q", "--change", "CMD /bin/sh", "-", f"{registry}/theirs/{shape}:v1", stdin=tar
    )
    options = {"oci": ["--format", "oci"], "v2s2": ["--format", "v2s2"],
               "zstd": ["--format", "oci", "--compression-format", "zstd"]}[shape]  # fmt: skip
    podman("push", "-q", "--tls-verify=false", *options, f"{registry}/theirs/{shape}:v1")
    found = client.pull(Reference.parse(f"{registry}/theirs/{shape}:v1"), other)
    assert found.config.cmd is not None
    assert describe(found.layers[-1].tree) == describe(tree)
    manifest = found.manifest()
    pushed = client.push(found, Reference.parse(f"{registry}/again/{shape}:v1"), other)
    assert pushed.digest == manifest.digest  # nothing is recompressed on the way


def test_skopeo_copies_what_we_push_without_touching_a_byte(
    registry: str, client: Registry, rich: Image, store: Store, tmp_path: Path
) -> None:
    name = f"{registry}/interop/copied:v1"
    pushed = client.push(rich, Reference.parse(name), store)
    layout = tmp_path / "layout"
    subprocess.run(
        ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:v1"],
        check=True, capture_output=True,
    )  # fmt: skip
    index = json.loads((layout / "index.json").read_bytes())
    assert index["manifests"][0]["digest"] == pushed.digest
    blobs = {path.name for path in (layout / "blobs/sha256").iterdir()}
    assert {layer.digest[7:] for layer in rich.manifest().layers} < blobs
