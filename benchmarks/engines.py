"""The builders that ``benchmarks.build`` times, behind one small interface.

Each starts what it needs under a folder of its own and takes it away again: docker's
daemon with its own data, socket and pid file, buildah with its own storage.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from builders.build import BuildRequest, build
from builders.context.git import GitContext, find_commit
from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.images.store import Store
from builders.plan import host_platform
from builders.registry import Registry
from builders.resolve import Resolver
from runtime.spec import IdRange, Limits, Network
from runtime.state import StateDirectory
from tests.builders.conftest import Recorder

CHECKOUT = Path(__file__).resolve().parents[1]
BASE = "localhost/bench"
# The distribution's client goes with its engine: a newer one builds only with a plug-in.
CLIENT = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"


class Engine(Protocol):
    """``build`` from a repository's folder; ``push`` what was built as ``tag``; ``pull`` into a
    store that ``forget`` has emptied of it."""

    name: str

    def build(self, root: Path, *, cold: bool, tag: str = "") -> None: ...
    def push(self, tag: str) -> None: ...
    def pull(self, name: str) -> None: ...
    def forget(self, name: str) -> None: ...


class Ours:
    """Called in this process, from the commit, as a worker does."""

    name = "ours"

    def __init__(self, home: Path, base: Path) -> None:
        self._home = home
        self.store = Store(home / "store")
        self._state = StateDirectory(home / "sandboxes")
        tree = home / "base"
        shutil.copytree(base, tree, symlinks=True)
        layer = self.store.commit_tree(tree, base=0, epoch=1_600_000_000)
        config = ImageConfig(
            architecture=host_platform().partition("/")[2],
            created="2023-11-01T00:00:00Z",
            env=("PATH=/bin",),
        )
        self.store.save_image(config, [layer], names=[Reference.parse(BASE)])
        self._fresh = self.store

    def build(self, root: Path, *, cold: bool, tag: str = "") -> None:
        context = GitContext(*find_commit(root, "HEAD"))
        try:
            images = build(
                BuildRequest(
                    context=context,
                    ids=IdRange(0x7000_0000),
                    limits=Limits(memory=512 << 20, pids=256, timeout=60),
                    network=Network.NONE,
                    no_cache=cold,
                    pack=bool(tag),
                ),
                store=self.store,
                state=self._state,
                resolve=Resolver(self.store),
                listener=Recorder(),
            )
        finally:
            context.close()
        if tag:
            self.store.tag(images[None], Reference.parse(tag))

    def push(self, tag: str) -> None:
        name = Reference.parse(tag)
        image = self.store.find_image(name)
        assert image is not None
        with Registry(name.registry) as registry:
            registry.push(image, name, self.store)

    def pull(self, name: str) -> None:
        reference = Reference.parse(name)
        with Registry(reference.registry) as registry:
            registry.pull(reference, self._fresh)

    def forget(self, name: str) -> None:
        shutil.rmtree(self._home / "fresh", ignore_errors=True)
        self._fresh = Store(self._home / "fresh")


class Command:
    """Our command line, a new process each time; ``peak`` is its largest one's memory in MiB."""

    name = "ours, command"

    def __init__(self, ours: Ours, home: Path) -> None:
        self._store = ours.store.root
        self._fresh = home / "fresh-cli"
        self.peak = 0.0

    def build(self, root: Path, *, cold: bool, tag: str = "") -> None:
        words = ["build", "-q", "--network", "none", *(["--no-cache"] if cold else [])]
        self._run(self._store, *words, *(["-t", tag, "--push"] if tag else []), f"{root}#HEAD")

    def push(self, tag: str) -> None:
        """Done by ``build --push``, which is what a person would run."""

    def pull(self, name: str) -> None:
        self._run(self._fresh, "pull", name)

    def forget(self, name: str) -> None:
        shutil.rmtree(self._fresh, ignore_errors=True)

    def _run(self, store: Path, *words: str) -> None:
        command = [sys.executable, "-m", "builders", "--store", str(store), *words]
        process = subprocess.Popen(
            command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        trouble = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        if process.returncode:
            raise RuntimeError(trouble.decode()[-2000:])
        self.peak = max(self.peak, usage.ru_maxrss / 1024)


class Docker:
    """BuildKit inside the distribution's dockerd, by its command line."""

    name = "docker"

    def __init__(self, socket: Path) -> None:
        self._env = {"DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "1"}

    def build(self, root: Path, *, cold: bool, tag: str = "") -> None:
        words = ["-q", "--network", "none", *(["--no-cache"] if cold else [])]
        quiet([CLIENT, "build", *words, *(["-t", tag] if tag else []), str(root)], **self._env)

    def push(self, tag: str) -> None:
        quiet([CLIENT, "push", "-q", tag], **self._env)

    def pull(self, name: str) -> None:
        quiet([CLIENT, "pull", "-q", name], **self._env)

    def forget(self, name: str) -> None:
        subprocess.run([CLIENT, "rmi", "-f", name], env={**os.environ, **self._env},
                       check=False, capture_output=True)  # fmt: skip

    def load(self, base: Path) -> None:
        self._import(base)

    def _import(self, base: Path) -> None:
        with subprocess.Popen(["tar", "-C", base, "-c", "."], stdout=subprocess.PIPE) as tar:
            command = [CLIENT, "import", "-c", "ENV PATH=/bin", "-", BASE]
            subprocess.run(command, stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL,
                           env={**os.environ, **self._env})  # fmt: skip


@contextmanager
def docker(home: Path, base: Path) -> Iterator[Docker]:
    """A daemon of its own with the base image loaded; gone at the end with all its data."""
    home.mkdir()
    command = ["dockerd", "--data-root", f"{home}/data", "--exec-root", f"{home}/exec"]
    command += ["-H", f"unix://{home}/s", "--pidfile", f"{home}/pid"]
    command += ["--bridge=none", "--iptables=false"]
    with (home / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            engine = Docker(home / "s")
            _wait_for(lambda: (home / "s").exists() and daemon.poll() is None, "dockerd")
            engine.load(base)
            yield engine
        finally:
            daemon.terminate()
            daemon.wait(30)


class Buildah:
    """``buildah build --layers``, which has no daemon. It runs steps as root of this host."""

    name = "buildah"

    def __init__(self, home: Path, base: Path) -> None:
        self._words = [
            "buildah", "--root", f"{home}/root", "--runroot", f"{home}/run",
            "--storage-driver", "overlay",
        ]  # fmt: skip
        container = self._output("from", "scratch")
        self._run("add", container, f"{base}/", "/")
        self._run("config", "--env", "PATH=/bin", container)
        self._run("commit", "--rm", container, BASE)

    def build(self, root: Path, *, cold: bool, tag: str = "") -> None:
        words = ["--layers", "--jobs", "3", "--isolation", "oci", "--runtime", "runc"]
        words += ["--network", "none", "--ulimit", "nofile=1024:1024"]
        words += ["--no-cache"] if cold else []
        self._run("build", "-q", *words, *(["-t", tag] if tag else []), str(root))

    def push(self, tag: str) -> None:
        self._run("push", "-q", "--tls-verify=false", tag)

    def pull(self, name: str) -> None:
        self._run("pull", "-q", "--tls-verify=false", name)

    def forget(self, name: str) -> None:
        subprocess.run([*self._words, "rmi", "-f", name], check=False, capture_output=True)

    def close(self) -> None:
        subprocess.run([*self._words, "rmi", "-a", "-f"], check=False, capture_output=True)

    def _run(self, *words: str) -> None:
        quiet([*self._words, *words])

    def _output(self, *words: str) -> str:
        done = subprocess.run([*self._words, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()


@contextmanager
def buildah(home: Path, base: Path) -> Iterator[Buildah]:
    home.mkdir()
    engine = Buildah(home, base)
    try:
        yield engine
    finally:
        engine.close()
        for mount in _mounts_below(home):
            subprocess.run(["umount", mount], check=False)


@contextmanager
def engines(home: Path, base: Path) -> Iterator[list[Engine]]:
    """Ours, and of the others those that are installed."""
    with ExitStack() as stack:
        ours = Ours(home / "ours", base)
        found: list[Engine] = [ours, Command(ours, home)]
        if shutil.which("dockerd"):
            found.append(stack.enter_context(docker(home / "docker", base)))
        if shutil.which("buildah"):
            found.append(stack.enter_context(buildah(home / "buildah", base)))
        yield found


def quiet(command: list[str], **env: str) -> None:
    done = subprocess.run(command, check=False, cwd=CHECKOUT, env={**os.environ, **env},
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.decode(errors='replace')[-2000:]}")


def _wait_for(ready: Callable[[], bool], what: str) -> None:
    for _ in range(300):
        if ready():
            return
        time.sleep(0.1)
    raise RuntimeError(f"{what} did not start")


def _mounts_below(folder: Path) -> list[str]:
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in reversed(points) if Path(point).is_relative_to(folder)]
