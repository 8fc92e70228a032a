"""One store with a busybox base for all tests of builds, and what a build needs around it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from builders.build import BuildRequest, StepInfo, StepResult, build
from builders.context.folder import FolderContext
from builders.errors import ImageNotFound
from builders.images.config import History, ImageConfig
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.plan import host_platform
from runtime.sandbox import Stream
from runtime.spec import IdRange, Limits, Network, Parent
from runtime.state import StateDirectory

# A range and a cgroup of this process's own: other tests may run at the same time.
IDS = IdRange(0x5000_0000 + os.getpid() % 4096 * 0x1_0000)
PARENT = Parent(f"test-builders-{os.getpid()}")
BUSYBOX = Path("/bin/busybox")
EPOCH = 1_700_000_000
BASE_CREATED = "2023-11-01T00:00:00Z"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nalice:x:1000:\nstaff:x:50:alice\n"


@dataclass
class Recorder:
    """A BuildListener that remembers."""

    started: list[StepInfo] = field(default_factory=list)
    results: dict[str, StepResult] = field(default_factory=dict)
    output: bytes = b""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def step_started(self, step: StepInfo) -> None:
        with self.lock:
            self.started.append(step)

    def step_output(self, step: StepInfo, stream: Stream, data: bytes) -> None:
        with self.lock:
            self.output += data

    def step_finished(self, step: StepInfo, result: StepResult) -> None:
        with self.lock:
            self.results[step.text] = result

    def cached(self) -> list[str]:
        return [text for text, result in self.results.items() if result.cached]


@dataclass
class Builder:
    """Builds folders with defaults that suit tests."""

    store: Store
    state: StateDirectory

    def resolve(self, ref: Reference) -> Image:
        image = self.store.find_image(ref)
        if image is None:
            raise ImageNotFound(f"no image {ref.familiar} is known")
        return image

    def all(self, context: Path, **asked: Any) -> tuple[dict[str | None, Image], Recorder]:
        recorder = asked.pop("listener", None) or Recorder()
        cancel = asked.pop("cancel", None)
        asked.setdefault("limits", Limits(memory=256 << 20, pids=64, timeout=60))
        asked.setdefault("network", Network.NONE)
        asked.setdefault("parent", PARENT)
        opened = asked.pop("opened", None) or FolderContext(context)
        request = BuildRequest(context=opened, ids=IDS, epoch=EPOCH, **asked)
        try:
            images = build(
                request,
                store=self.store,
                state=self.state,
                resolve=self.resolve,
                listener=recorder,
                cancel=cancel,
            )
        finally:
            opened.close()
        return images, recorder

    def one(self, context: Path, **asked: Any) -> Image:
        return self.all(context, **asked)[0][None]


def make_busybox(store: Store, work: Path) -> Image:
    """``busybox:latest``: one layer with a static busybox, its applets and three users' files."""
    tree = work / "tree"
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(BUSYBOX, tree / "bin/busybox")
    for applet in os.popen(f"{BUSYBOX} --list").read().split():
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    for folder, mode in (("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("usr", 0o755)):
        (tree / folder).mkdir()
        (tree / folder).chmod(mode)
    (tree / "etc/passwd").write_text(PASSWD)
    (tree / "etc/group").write_text(GROUP)
    for name in ("passwd", "group"):
        (tree / "etc" / name).chmod(0o644)
    layer = store.commit_tree(tree, base=0, epoch=1_600_000_000)
    config = ImageConfig(
        architecture=host_platform().partition("/")[2],
        created=BASE_CREATED,
        env=("PATH=/bin:/usr/bin",),
        cmd=("sh",),
        history=(History(created=BASE_CREATED, created_by="busybox"),),
    )
    return store.save_image(config, [layer], names=[Reference.parse("busybox:latest")])


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that a sandbox's users can walk to, which pytest's own is not."""
    path = Path("/var/tmp") / f"gantry-builders-{os.getpid()}"
    path.mkdir(mode=0o711)
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def shared_builder(home: Path) -> Builder:
    store = Store(home / "store")
    make_busybox(store, home / "busybox")
    return Builder(store, StateDirectory(home / "sandboxes"))


@pytest.fixture
def builder(shared_builder: Builder) -> Builder:
    return shared_builder


@pytest.fixture
def project(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Write files of a build context into a folder of the test's own; give the folder."""

    def write(files: Mapping[str, str]) -> Path:
        root = tmp_path / "context"
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        root.mkdir(exist_ok=True)
        return root

    return write
