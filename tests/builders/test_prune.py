"""Pruning takes what is old or too much, and nothing that somebody needs."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from builders.cli import main
from builders.images.config import ImageConfig
from builders.images.prune import PruneLimits
from builders.images.reference import Reference
from builders.images.store import Image, Store
from runtime.state import StateDirectory
from tests.builders.conftest import IDS, Builder, make_busybox
from tests.builders.images.test_store import a_layer

pytestmark = pytest.mark.root

Project = Callable[[Mapping[str, str]], Path]
EVERYTHING = PruneLimits(older_than=0)
CACHE_STEP = "FROM busybox\nRUN --mount=type=cache,target=/c "


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Builder:
    """A store of this test's own, where the sandboxes' users can walk to it."""
    folder = home / tmp_path.name
    folder.mkdir(mode=0o711)
    folder.chmod(0o711)
    store = Store(folder / "store")
    make_busybox(store, folder / "busybox")
    return Builder(store, StateDirectory(folder / "sandboxes"))


def an_image(store: Store, text: str) -> Image:
    return store.save_image(ImageConfig(architecture="amd64"), [a_layer(store, text)])


def age(store: Store, seconds: float = 1000.0) -> None:
    """Let all there is have been used that long ago."""
    then = time.time() - seconds
    for path in store.root.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def test_an_image_without_a_name_goes_with_its_layer_and_blobs(store: Store) -> None:
    image = an_image(store, "one")
    image.manifest()
    age(store)
    done = store.prune(PruneLimits(older_than=500))
    assert (done.images, done.layers, done.blobs) == (1, 1, 2)
    assert done.bytes_freed > 0
    assert done.bytes_left == 0
    assert store.image(image.id) is None
    assert not list(store.root.glob("layers/sha256/*"))
    assert not list(store.root.glob("compressed/sha256/*"))


def test_what_was_used_lately_stays(store: Store) -> None:
    image = an_image(store, "one")
    age(store)
    assert store.image(image.id) is not None
    assert store.prune(PruneLimits(older_than=500)).images == 0
    assert store.image(image.id) is not None


def test_a_name_given_here_keeps_its_image_and_one_from_a_registry_does_not(store: Store) -> None:
    here, there = an_image(store, "here"), an_image(store, "there")
    store.tag(here, Reference.parse("base:1"))
    store.tag(there, Reference.parse("pulled:1"), fetched=True)
    age(store)
    assert store.prune(EVERYTHING).images == 1
    assert store.find_image(Reference.parse("base:1")) is not None
    assert store.names() == ["docker.io/library/base:1"]


def test_the_image_of_a_digest_to_keep_stays(store: Store) -> None:
    image = an_image(store, "released")
    digest = image.manifest().digest
    store.tag(image, Reference.parse("registry.test/app").with_digest(digest), fetched=True)
    age(store)
    store.prune(PruneLimits(older_than=0, keep=frozenset({digest})))
    kept = store.image(image.id)
    assert kept is not None
    assert store.has_blob(kept.manifest().layers[0])


def test_what_work_in_progress_uses_stays_until_it_ends(store: Store) -> None:
    image = an_image(store, "one")
    age(store)
    with Store(store.root).in_use():
        pass  # somebody else's work, which does not use it
    with store.in_use():
        assert store.image(image.id) is not None
        age(store)
        assert Store(store.root).prune(EVERYTHING).layers == 0
        assert store.image(image.id) is not None
    age(store)
    assert store.prune(EVERYTHING).layers == 1


def test_the_notes_of_a_killed_process_hold_nothing(store: Store) -> None:
    image = an_image(store, "one")
    script = (
        "import os, sys; from pathlib import Path; from builders.images.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "with store.in_use():\n    store.image(sys.argv[2]); os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(store.root), image.id], check=True)
    assert list(store.root.glob("pins/*/image-*"))
    age(store)
    assert store.prune(EVERYTHING).images == 1
    store.reap()
    assert not list((store.root / "pins").iterdir())


def test_a_store_that_is_too_big_loses_what_was_not_used_for_longest(store: Store) -> None:
    old, new = an_image(store, "old " * 5000), an_image(store, "new " * 5000)
    age(store)
    store.image(new.id)
    size = store.prune(PruneLimits()).bytes_left
    done = store.prune(PruneLimits(max_bytes=size - 1))
    assert done.images == 1
    assert done.bytes_left < size
    assert store.image(old.id) is None
    assert store.image(new.id) is not None


def test_cached_steps_and_cache_mounts_go_by_age(own: Builder, project: Project) -> None:
    context = project({"Dockerfile": CACHE_STEP + "echo 1 > /c/1; echo 2 > /2\n"})
    own.one(context)
    (cache,) = own.store.root.glob("caches/*/*")
    assert own.store.prune(PruneLimits(older_than=500)).caches == 0
    age(own.store)
    done = own.store.prune(PruneLimits(older_than=500))
    assert (done.steps, done.caches) == (1, 1)
    assert not cache.exists()
    assert own.one(context).layers[-1].files == 1  # and it can be built again


def test_a_cache_mount_that_has_grown_too_big_is_emptied_with_a_word(
    own: Builder, project: Project
) -> None:
    context = project({"Dockerfile": CACHE_STEP + "head -c 3000000 /dev/zero > /c/big\n"})
    _, heard = own.all(context, cache_mount_bytes=2 << 20)
    assert b"held more than 2 MiB in all, so /c was emptied of 2.9 MiB." in heard.output
    assert not list(own.store.root.glob("caches/*/*/tree"))


def test_of_many_cache_mounts_the_one_not_used_for_longest_is_emptied(
    own: Builder, project: Project
) -> None:
    def step(name: str, megabytes: int, **asked: Any) -> bytes:
        fill = f"head -c {megabytes}000000 /dev/zero > /{name}/big"
        text = f"FROM busybox\nRUN --mount=type=cache,target=/{name} {fill}\n"
        _, heard = own.all(project({"Dockerfile": text}), cache_mount_bytes=6 << 20, **asked)
        return heard.output

    assert step("old", 2) + step("new", 2) + step("other", 5, scope="another") == b""
    (old,) = (
        use
        for use in own.store.root.glob("caches/*/*/use")
        if (use.parent / "name").read_text() == "/old"
    )
    os.utime(old, (1, 1))
    heard = step("third", 3)
    assert heard.count(b"Notice") == 1
    assert b"so /old was emptied of 1.9 MiB" in heard
    kept = {(tree.parent / "name").read_text() for tree in own.store.root.glob("caches/*/*/tree")}
    assert kept == {"/new", "/other", "/third"}


def test_a_cache_mount_that_another_step_has_mounted_is_not_emptied(
    own: Builder, project: Project
) -> None:
    text = "FROM busybox\nRUN --mount=type=cache,target=/{} {}\n"
    fill = "head -c 3000000 /dev/zero > /{}/big"
    own.one(project({"Dockerfile": text.format("a", fill.format("a"))}))
    (use,) = own.store.root.glob("caches/*/*/use")
    with use.open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        context = project({"Dockerfile": text.format("b", fill.format("b"))})
        _, heard = own.all(context, cache_mount_bytes=4 << 20)
    assert b"so /b was emptied" in heard.output
    assert (use.parent / "tree/big").stat().st_size == 3_000_000


def test_builds_and_pruning_side_by_side_lose_nothing(own: Builder, project: Project) -> None:
    program = (
        "import sys; from pathlib import Path; from builders.images.prune import PruneLimits\n"
        "from builders.images.store import Store\n"
        "while True: Store(Path(sys.argv[1])).prune(PruneLimits(older_than=0, max_bytes=0))\n"
    )
    pruning = subprocess.Popen([sys.executable, "-c", program, str(own.store.root)])
    try:
        for number in range(8):
            text = f"FROM busybox\nCOPY . /src\nRUN echo {number % 2} > /a\nRUN cat /a > /b\n"
            context = project({"Dockerfile": text})
            with own.store.in_use():
                image = own.one(context)
                with own.store.rootfs(image.layers, ids=IDS, bare=True) as rootfs:
                    assert (rootfs.path / "b").read_text() == f"{number % 2}\n"
                for blob in image.manifest().layers:
                    own.store.open_blob(blob.digest).close()
    finally:
        pruning.kill()
        pruning.wait()
    own.store.reap()


def test_the_command_says_what_it_removed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    an_image(store, "one")
    age(store)
    words = ["--store", str(store.root), "prune", "--older-than", "5m", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1
    (store.root / "scratch" / "of-a-killed-build").mkdir()
    assert main(words[:-1]) == 0
    assert capsys.readouterr().out.startswith(
        "Removed what killed builds left: 1.\nRemoved 0 images"
    )


def test_drafts_of_killed_builds_go_and_those_being_written_stay(store: Store) -> None:
    folder = store.root / "steps" / "lane" / "ab"
    folder.mkdir(parents=True)
    for name in (".new-dead", ".new-live"):
        (folder / name).write_text("{")
    then = time.time() - 7200
    os.utime(folder / ".new-dead", (then, then))
    store.prune(PruneLimits())
    assert [path.name for path in folder.iterdir()] == [".new-live"]
