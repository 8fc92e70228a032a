"""Real sandboxes for the tests, and the proof after each that nothing of them is left."""

from __future__ import annotations

import gc
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtime import host
from runtime.network import later
from runtime.reap import reap
from runtime.removal import remove_path
from runtime.sandbox import Stream, run
from runtime.snapshots import LowerDir, RootFs, mount_rootfs
from runtime.spec import MIB, NO_PARENT, IdRange, Limits, Parent, Receipt, SandboxSpec
from runtime.state import StateDirectory

BUSYBOX = Path(shutil.which("busybox") or "/usr/bin/busybox")
# Other tests may run sandboxes of their own at the same time.
PREFIX = f"rt{os.getpid()}-"
# A range that no other process of the tests uses: what runs in it is ours.
IDS = IdRange(3_000_000_000 + os.getpid() % 10_000 * 65536)


def oci_runtimes() -> list[str]:
    """Those that can run here: crun refuses cgroups v1, also the hybrid layout."""
    v2 = host.cgroup_version() is host.CgroupVersion.V2
    return [name for name in ("crun", "runc") if shutil.which(name) and (v2 or name == "runc")]


@pytest.fixture(params=oci_runtimes())
def each_runtime(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once with each OCI runtime that this host allows."""
    with pytest.MonkeyPatch.context() as patched:  # its own: a test may undo those that it made
        patched.setenv("GANTRY_OCI_RUNTIME", request.param)
        host.oci_runtime.cache_clear()
        yield request.param
    host.oci_runtime.cache_clear()


def _removed(path: Path) -> bool:
    with suppress(OSError):
        remove_path(path)
    return not path.exists()


@pytest.fixture
def area() -> Iterator[Path]:
    """A directory that the sandboxes' users can walk through, unlike pytest's own; on a disk."""
    path = Path(tempfile.mkdtemp(prefix="gantry-test-", dir="/var/tmp"))
    path.chmod(0o711)
    yield path
    # The watcher of a process that was killed may still be reaping there.
    assert wait_until(lambda: _removed(path))


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> LowerDir:
    """A layer with a static busybox, natural owners, and no mount point at all."""
    tree = tmp_path_factory.mktemp("busybox")
    (tree / "bin").mkdir()
    shutil.copy(BUSYBOX, tree / "bin/busybox")
    names = os.popen(f"{BUSYBOX} --list").read().split()
    for name in names:
        if name != "busybox":
            (tree / "bin" / name).symlink_to("busybox")
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)
    tree.chmod(0o755)
    return LowerDir(tree)


@pytest.fixture
def state(area: Path) -> StateDirectory:
    return StateDirectory(area / "state")


def reap_here(state: StateDirectory) -> list[str]:
    """``reap``, and what it did of ``state``: mounts of the dead are looked for over the whole
    machine, on which tests of other processes kill their owners, too."""
    done = reap(state)
    return [it for it in done if not it.startswith("unmounted ") or str(state.root) in it]


@pytest.fixture
def rootfs(area: Path, busybox: LowerDir) -> Iterator[RootFs]:
    scratch = area / "scratch"
    scratch.mkdir()
    with mount_rootfs([busybox], ids=IDS, scratch=scratch, target=area / "root") as mounted:
        yield mounted


@dataclass
class Ran:
    receipt: Receipt
    out: str
    err: str


@dataclass
class Sandboxes:
    """Runs shell scripts in sandboxes of one root."""

    state: StateDirectory
    rootfs: RootFs

    def spec(self, *args: str, **fields: Any) -> SandboxSpec:
        fields.setdefault("limits", Limits(memory=64 * MIB, pids=64, timeout=20))
        fields.setdefault("upper", self.rootfs.upper)
        fields.setdefault("id", f"{PREFIX}{secrets.token_hex(4)}")
        return SandboxSpec(rootfs=self.rootfs.path, args=args, ids=IDS, **fields)

    def run(
        self,
        *args: str,
        cancel: threading.Event | None = None,
        on_output: Callable[[Stream, bytes], None] | None = None,
        parent: Parent = NO_PARENT,
        **fields: Any,
    ) -> Ran:
        got: dict[Stream, list[bytes]] = {Stream.STDOUT: [], Stream.STDERR: []}

        def collect(stream: Stream, data: bytes) -> None:
            got[stream].append(data)
            if on_output:
                on_output(stream, data)

        receipt = run(
            self.spec(*args, **fields),
            state=self.state,
            on_output=collect,
            cancel=cancel,
            parent=parent,
        )
        out, err = (b"".join(got[s]).decode(errors="replace") for s in Stream)
        return Ran(receipt, out, err)

    def sh(self, script: str, **fields: Any) -> Ran:
        return self.run("/bin/sh", "-c", script, **fields)


@pytest.fixture
def sandboxes(state: StateDirectory, rootfs: RootFs, nothing_left: None) -> Sandboxes:
    return Sandboxes(state, rootfs)


@pytest.fixture
def nothing_left(area: Path, state: StateDirectory, each_runtime: str) -> Iterator[None]:
    """After the test, which runs once with each OCI runtime, nothing of a sandbox is there, and
    the sentinel is whole."""
    sentinel = area / "sentinel"
    sentinel.write_text("do not touch")
    sentinel.chmod(0o600)
    before = fingerprint(sentinel)
    mounted = mounts_of_the_host()
    yield
    later.settle()
    assert processes_of(IDS) == []
    assert cgroups_like(PREFIX) == []
    assert [m for m in mounts() if str(state.root) in m] == []
    assert list(state.boxes_dir.iterdir()) == []
    assert list(state.networks_dir.iterdir()) == []
    assert fingerprint(sentinel) == before
    assert mounts_of_the_host() == mounted


def fingerprint(path: Path) -> tuple[str, int, int, int]:
    found = path.stat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return digest, found.st_ino, found.st_uid, found.st_mode


def mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def mounts_of_the_host() -> set[str]:
    """Of mountinfo, what is mounted how where, but for places of tests that run beside this one."""
    engines = ("/var/lib/containers/", "/var/lib/docker/")
    theirs = ("/tmp/", "/var/tmp/", "/run/", "/dev/shm/", *engines)
    found = set()
    for line in mounts():
        words, _, source = line.partition(" - ")
        place, options = words.split()[4:6]
        if not place.startswith(theirs):
            found.add(f"{place} {options} {source}")
    return found


def open_descriptors() -> int:
    """Of this process, but for what earlier tests left to the garbage collector."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def cgroups_like(prefix: str) -> list[str]:
    """Directories below the gantry cgroups, of any version, whose name begins so."""
    root = Path("/sys/fs/cgroup")
    tops = [top / "gantry" for top in (root, *root.iterdir())]
    return [
        f"{at}/{name}"
        for top in tops
        for at, names, _ in os.walk(top)
        for name in names
        if name.startswith(prefix)
    ]


def processes_of(ids: IdRange) -> list[str]:
    """Command lines of host processes whose user is in the range; zombies are dead."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and ids.base <= entry.stat().st_uid < ids.base + ids.size:
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in found if line]


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether ``condition`` came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
