"""The store: layers and images that are whole or absent, whoever else is at work or was killed."""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from builders.errors import RegistryError, StoreError
from builders.images.config import ImageConfig
from builders.images.digests import OCI_LAYER, OCI_LAYER_GZIP, Descriptor
from builders.images.layerstore import EMPTY_DIFF_ID
from builders.images.reference import Reference
from builders.images.store import Image, Layer, Store
from runtime.spec import IdRange
from tests.builders.images.trees import EPOCH, describe

pytestmark = pytest.mark.root

IDS = IdRange(1_000_000)
NAME = Reference.parse("team/app:v1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def a_tree(folder: Path, text: str = "hello", *, base: int = IDS.base) -> Path:
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/motd").write_text(text)
    for path in (folder, folder / "etc", folder / "etc/motd"):
        os.chown(path, base, base)
    return folder


def a_layer(store: Store, text: str = "hello") -> Layer:
    with store.staging() as folder:
        return store.commit_upper(a_tree(folder / "upper", text), IDS, epoch=EPOCH)


def an_image(store: Store, *texts: str) -> Image:
    layers = [a_layer(store, text) for text in texts or ("hello",)]
    return store.save_image(ImageConfig(architecture="amd64"), layers, names=[NAME])


def leftovers(store: Store) -> list[str]:
    return [p.name for kind in ("tmp", "scratch", "mounts") for p in (store.root / kind).iterdir()]


def test_an_upper_is_moved_into_the_store_and_found_by_its_diff_id(
    store: Store, tmp_path: Path
) -> None:
    upper = a_tree(store.root / "tmp/upper")
    inode = (upper / "etc/motd").stat().st_ino
    layer = store.commit_upper(upper, IDS, epoch=EPOCH)
    assert not upper.exists()
    assert (layer.tree / "etc/motd").stat().st_ino == inode
    assert (layer.files, layer.base, layer.lower.base) == (2, IDS.base, IDS.base)
    assert store.layer(layer.diff_id) == layer
    assert Store(store.root).layer(layer.diff_id) == layer


def test_an_upper_without_changes_is_the_empty_layer(store: Store) -> None:
    with store.staging() as folder:
        (folder / "upper").mkdir()
        layer = store.commit_upper(folder / "upper", IDS, epoch=EPOCH)
    assert layer.empty
    assert layer.diff_id == EMPTY_DIFF_ID


def test_an_equal_layer_of_another_project_is_kept_once(store: Store) -> None:
    first = a_layer(store)
    other = IdRange(IDS.base + 65536)
    with store.staging() as folder:
        upper = a_tree(folder / "upper", base=other.base)
        second = store.commit_upper(upper, other, epoch=EPOCH)
        assert upper.exists()
    assert second == first


def test_an_upper_on_another_file_system_is_copied_with_all_it_has(store: Store) -> None:
    folder = Path("/dev/shm") / f"gantry-test-{os.getpid()}"
    try:
        upper = a_tree(folder)
        (upper / "su").write_bytes(b"x" * 300_000)
        os.chown(upper / "su", IDS.base + 5, IDS.base + 6)
        (upper / "su").chmod(0o4711)
        os.link(upper / "su", upper / "su2")
        os.mknod(upper / "gone", stat.S_IFCHR, os.makedev(0, 0))
        layer = store.commit_upper(upper, IDS, epoch=EPOCH)
        assert describe(layer.tree) == describe(upper)
        assert store.verify(layer)
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


def test_what_a_sandbox_changed_becomes_a_layer_that_shows_it_again(store: Store) -> None:
    base = a_layer(store)
    with store.rootfs([base], ids=IDS) as rootfs:
        (rootfs.path / "etc/motd").unlink()
        (rootfs.path / "etc/issue").write_text("new")
        os.chown(rootfs.path / "etc/issue", IDS.base, IDS.base)
        layer = store.commit_upper(rootfs.upper, IDS, epoch=EPOCH)
    with store.rootfs([base, layer], ids=IdRange(9_000_000)) as rootfs:
        assert sorted(p.name for p in (rootfs.path / "etc").iterdir() if p.stat().st_size) == [
            "issue"
        ]
        assert (rootfs.path / "etc/issue").stat().st_uid == 9_000_000
        assert not (rootfs.path / "etc/motd").exists()
    assert leftovers(store) == []


def test_a_blob_is_made_once_however_many_ask(store: Store) -> None:
    with store.staging() as folder:
        upper = a_tree(folder / "upper")
        (upper / "big").write_bytes(os.urandom(3 << 20))
        os.chown(upper / "big", IDS.base, IDS.base)
        layer = store.commit_upper(upper, IDS, epoch=EPOCH)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: store.blob(layer), range(8)))
    assert len(set(found)) == 1
    assert len(list((store.root / "blobs/sha256").iterdir())) == 1
    with store.open_blob(found[0].digest) as blob:
        assert len(blob.read()) == found[0].size


def test_a_blob_that_a_power_cut_cut_short_is_made_again(store: Store) -> None:
    layer = a_layer(store)
    made = store.blob(layer)
    path = store.root / "blobs/sha256" / made.digest.removeprefix("sha256:")
    os.truncate(path, 10)
    assert store.blob(layer) == made
    assert path.stat().st_size == made.size


def test_a_layer_that_was_changed_on_disk_is_noticed(store: Store) -> None:
    layer = a_layer(store)
    assert store.verify(layer)
    (layer.tree / "etc/motd").write_text("HELLO")
    assert not store.verify(layer)
    with pytest.raises(StoreError, match="damaged on disk"):
        store.blob(layer)
    assert leftovers(store) == []


def test_a_layer_whose_description_a_power_cut_ate_is_made_again(store: Store) -> None:
    layer = a_layer(store)
    (layer.tree.parent / "layer.json").write_bytes(b"")
    assert store.layer(layer.diff_id) is None
    assert a_layer(store) == layer
    assert store.layer(layer.diff_id) == layer


def power_cut(store: Store) -> Store:
    """The store as the next boot finds it: notes of another boot are still there."""
    for note in (store.root / "unsettled").iterdir():
        note.write_text("another boot")
    return Store(store.root)


def test_what_a_power_cut_may_have_damaged_counts_as_absent_and_is_made_again(
    store: Store,
) -> None:
    image = an_image(store)
    manifest = image.manifest()
    after = power_cut(store)
    assert after.find_image(NAME) is None
    assert after.layer(image.layers[0].diff_id) is None
    assert not after.has_blob(manifest.layers[0])
    again = an_image(after)
    assert again.id == image.id
    assert again.manifest().digest == manifest.digest
    assert after.find_image(NAME) == again


def test_what_was_settled_survives_a_power_cut(store: Store) -> None:
    image = an_image(store)
    image.manifest()
    store.settle()
    later = a_layer(store, "after the last sync")
    after = power_cut(store)
    assert after.find_image(NAME) == image
    assert after.layer(later.diff_id) is None
    after.settle()
    assert after.layer(later.diff_id) is None


def test_a_blob_comes_back_as_the_same_layer_in_another_store(store: Store, tmp_path: Path) -> None:
    layer = a_layer(store)
    blob = store.blob(layer)
    other = Store(tmp_path / "other")
    with store.open_blob(blob.digest) as file:
        found = other.import_layer(file, expect=blob, diff_id=layer.diff_id)
    assert (found.diff_id, found.size, found.files, found.base) == (
        layer.diff_id, layer.size, layer.files, 0,
    )  # fmt: skip
    assert describe(found.tree) == describe(layer.tree, base=IDS.base)
    assert other.blob(found) == blob
    assert other.verify(found)


def lies(blob: Descriptor, layer: Layer, data: bytes) -> dict[str, tuple[bytes, Descriptor, str]]:
    zeros = "sha256:" + "0" * 64
    return {
        "another digest": (data, replace(blob, digest=zeros), layer.diff_id),
        "too long": (data, replace(blob, size=blob.size - 1), layer.diff_id),
        "too short": (data, replace(blob, size=blob.size + 1), layer.diff_id),
        "truncated": (data[:-9], blob, layer.diff_id),
        "one bit": (data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], blob, layer.diff_id),
        "another diff id": (data, blob, zeros),
        "not compressed": (data, replace(blob, media_type=OCI_LAYER), layer.diff_id),
        "unknown type": (data, replace(blob, media_type="text/html"), layer.diff_id),
    }


@pytest.mark.parametrize(
    "name", list(lies(Descriptor("", "", 1), Layer("", 0, 0, Path(), 0), b"0" * 9))
)
def test_a_blob_that_lies_leaves_nothing(name: str, store: Store, tmp_path: Path) -> None:
    layer = a_layer(store)
    blob = store.blob(layer)
    with store.open_blob(blob.digest) as file:
        data, expect, diff_id = lies(blob, layer, file.read())[name]
    other = Store(tmp_path / "other")
    with pytest.raises(RegistryError):
        other.import_layer(io.BytesIO(data), expect=expect, diff_id=diff_id)
    assert leftovers(other) == []
    assert list((other.root / "layers/sha256").iterdir()) == []
    assert list((other.root / "blobs/sha256").iterdir()) == []


def test_an_image_is_found_by_name_and_by_id(store: Store) -> None:
    image = an_image(store, "one", "two")
    again = Store(store.root)
    assert again.find_image(NAME) == image
    assert again.image(image.id) == image
    assert again.find_image(Reference.parse("team/app:v2")) is None
    assert again.names() == ["docker.io/team/app:v1"]


def test_a_name_moves_and_goes_while_the_image_stays(store: Store) -> None:
    first, second = an_image(store, "one"), an_image(store, "two")
    assert store.find_image(NAME) == second
    assert store.image(first.id) == first
    assert store.untag(NAME)
    assert not store.untag(NAME)
    assert store.find_image(NAME) is None


def test_an_image_with_a_missing_layer_is_not_found(store: Store) -> None:
    image = an_image(store)
    (image.layers[0].tree.parent / "layer.json").unlink()
    assert store.find_image(NAME) is None


def test_the_manifest_is_the_same_in_every_store(store: Store, tmp_path: Path) -> None:
    image = an_image(store, "one", "two")
    other = an_image(Store(tmp_path / "other"), "one", "two")
    assert image.manifest().data == other.manifest().data
    assert [layer.media_type for layer in image.manifest().layers] == [OCI_LAYER_GZIP] * 2
    assert image.manifest().config.digest == image.id


def test_sources_of_a_blob_are_remembered_newest_first_and_bounded(store: Store) -> None:
    digest = "sha256:" + "a" * 64
    for number in range(20):
        store.remember_source(digest, f"host/repo{number}")
    store.remember_source(digest, "host/repo19")
    assert store.sources(digest)[:2] == ("host/repo19", "host/repo18")
    assert len(store.sources(digest)) == 16


def test_no_other_user_reaches_a_layer_but_everyone_can_pass_to_a_mount(store: Store) -> None:
    a_layer(store)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in store.root.iterdir()}
    assert modes.pop("mounts") == modes.pop("git") == 0o711
    assert set(modes.values()) == {0o700}
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o711


def test_threads_that_commit_the_same_layer_agree(store: Store) -> None:
    barrier = threading.Barrier(8)

    def commit(_: int) -> Layer:
        with store.staging() as folder:
            upper = a_tree(folder / "upper")
            barrier.wait()
            return store.commit_upper(upper, IDS, epoch=EPOCH)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(commit, range(8)))) == 1
    assert leftovers(store) == []


WORKER = """
import sys
from pathlib import Path
from builders.images.reference import Reference
from builders.images.store import Store
from tests.builders.images.test_store import a_layer, an_image
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    an_image(store, f"layer {number}").manifest()
"""


def worker(store: Store) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(store.root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


def test_processes_that_make_the_same_images_agree(store: Store) -> None:
    workers = [worker(store) for _ in range(2)]
    for process in workers:
        start(process)
    assert [process.wait(60) for process in workers] == [0, 0]
    for process in workers:
        close(process)
    image = store.find_image(NAME)
    assert image is not None
    assert all(store.verify(layer) for layer in image.layers)
    assert len(list((store.root / "layers/sha256").iterdir())) == 40
    assert leftovers(store) == []


def test_a_killed_process_leaves_nothing_that_reaping_does_not_remove(store: Store) -> None:
    for pause in (0.0, 0.01, 0.03, 0.06):
        process = worker(store)
        start(process)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        close(process)
        store.reap()
        assert leftovers(store) == []
        for folder in (store.root / "layers/sha256").iterdir():
            layer = store.layer(f"sha256:{folder.name}")
            assert layer is not None
            assert store.verify(layer)
        image = store.find_image(NAME)
        assert image is None or image.manifest().digest
    assert an_image(store).manifest()


def test_reaping_leaves_alone_what_is_in_use(store: Store) -> None:
    base = a_layer(store)
    with store.rootfs([base], ids=IDS) as rootfs, store.staging() as folder:
        assert Store(store.root).reap() == []
        assert (rootfs.path / "etc/motd").read_text() == "hello"
        assert folder.is_dir()


def test_a_root_file_system_of_a_dead_process_is_unmounted(store: Store) -> None:
    a_layer(store)
    code = """
import os, sys
from pathlib import Path
from builders.images.store import Store
from runtime.spec import IdRange
store = Store(Path(sys.argv[1]))
layer = store.layer(sys.argv[2])
with store.rootfs([layer], ids=IdRange(1_000_000)) as rootfs:
    os.kill(os.getpid(), 9)
"""
    diff_id = a_layer(store).diff_id
    subprocess.run([sys.executable, "-c", code, str(store.root), diff_id], check=False)
    assert str(store.root) in Path("/proc/self/mountinfo").read_text()
    assert len(store.reap()) >= 1
    assert str(store.root) not in Path("/proc/self/mountinfo").read_text()
    assert leftovers(store) == []


def test_what_a_base_that_was_being_made_had_mounted_is_unmounted(store: Store) -> None:
    """mmdebstrap mounts /proc and others in its tree, and may be killed with us."""
    inside = store.root / "tmp" / "left" / "tree" / "dev" / "shm"
    inside.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(inside)], check=True)
    (inside / "file").touch()
    assert store.reap() == ["unfinished work left"]
    assert str(store.root) not in Path("/proc/self/mountinfo").read_text()
    assert leftovers(store) == []
