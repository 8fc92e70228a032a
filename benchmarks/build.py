"""Builds timed beside docker (BuildKit): the same Dockerfiles, in one run.

    python -m benchmarks.build [--docker CLIENT] [--rounds 5]

Run as root. docker needs a daemon (e.g. ``dockerd --data-root DIR -H unix://S
--bridge=none --iptables=false`` and ``DOCKER_HOST=unix://S``) and a client that has
BuildKit built in or as a plug-in. Ours is called in this process, as the worker is,
with the command line's figure beside it. Medians of ``--rounds``, in seconds; no step
has a network in any of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from builders.build import BuildRequest, build
from builders.context.git import GitContext, find_commit
from builders.images.store import Store
from builders.resolve import Resolver
from runtime.spec import IdRange, Limits, Network
from runtime.state import StateDirectory
from tests.builders.conftest import BUSYBOX, Recorder, make_busybox

RUNS = 12
FILES = 20_000
CHECKOUT = Path(__file__).parents[1]
Builder = Callable[[Path, bool], None]  # (context, without cache)


def dockerfile(stamp: str) -> str:
    steps = "".join(f"RUN echo {number} {stamp} > /f{number}\n" for number in range(RUNS))
    return f"FROM busybox\n{steps}COPY src /src\nRUN cat /src/changing\n"


def make_context(root: Path, files: int) -> None:
    """A repository with ``files`` small files in 100 folders and one that will change."""
    for number in range(files):
        path = root / f"src/d{number % 100}/f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * 50)
    (root / "src").mkdir(parents=True, exist_ok=True)
    change(root)
    (root / "Dockerfile").write_text(dockerfile(root.name))
    git(root, "init", "-q")
    commit(root)


def change(root: Path) -> None:
    (root / "src/changing").write_text(f"{time.time()}\n")


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x")


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(root), *words], check=True, stdout=subprocess.DEVNULL)


class Ours:
    """Called in this process, from the commit."""

    def __init__(self, home: Path) -> None:
        self.store = Store(home / "store")
        self.state = StateDirectory(home / "sandboxes")
        make_busybox(self.store, home / "busybox")

    def __call__(self, root: Path, cold: bool) -> None:
        context = GitContext(*find_commit(root, "HEAD"))
        try:
            build(
                BuildRequest(
                    context=context,
                    ids=IdRange(0x7000_0000),
                    limits=Limits(memory=512 << 20, pids=256, timeout=60),
                    network=Network.NONE,
                    no_cache=cold,
                ),
                store=self.store,
                state=self.state,
                resolve=Resolver(self.store),
                listener=Recorder(),
            )
        finally:
            context.close()

    def by_command(self, root: Path, cold: bool) -> None:
        command = [sys.executable, "-m", "builders", "--store", str(self.store.root), "build"]
        words = ["-q", "--network", "none", *(["--no-cache"] if cold else []), f"{root}#HEAD"]
        quiet(command + words)


def docker_builder(client: str) -> Builder:
    def run(root: Path, cold: bool) -> None:
        words = ["build", "-q", "--network", "none", *(["--no-cache"] if cold else []), str(root)]
        quiet([client, *words], DOCKER_BUILDKIT="1")

    return run


def quiet(command: list[str], **env: str) -> None:
    subprocess.run(command, check=True, cwd=CHECKOUT, env={**os.environ, **env},
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip


def load_base(client: str, home: Path) -> None:
    """The same base in docker: a busybox and its applets."""
    tree = home / "docker-base"
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(BUSYBOX, tree / "bin/busybox")
    for name in ("sh", "echo", "cat"):
        (tree / "bin" / name).symlink_to("busybox")
    with subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE) as tar:
        words = [client, "import", "-c", "ENV PATH=/bin", "-", "busybox:latest"]
        subprocess.run(words, stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        home = Path(folder)
        home.chmod(0o711)
        yield home


def measure(run: Builder, root: Path, rounds: int, *, cold: bool, changing: bool) -> float:
    times = []
    for _ in range(rounds):
        if changing:
            change(root)
            commit(root)
        started = time.perf_counter()
        run(root, cold)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docker", default="")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with workspace() as home:
        ours = Ours(home)
        builders: dict[str, Builder] = {"ours": ours, "ours, command": ours.by_command}
        if options.docker:
            load_base(options.docker, home)
            builders["docker"] = docker_builder(options.docker)
        small, large = home / "small", home / "large"
        make_context(small, 20)
        make_context(large, FILES)
        report(builders, small, large, options.rounds)


def report(builders: dict[str, Builder], small: Path, large: Path, rounds: int) -> None:
    rows: list[tuple[str, Path, dict[str, bool]]] = [
        (f"{RUNS} RUNs, cold", small, {"cold": True, "changing": False}),
        ("the same, unchanged", small, {"cold": False, "changing": False}),
        ("one file changed", small, {"cold": False, "changing": True}),
        (f"{FILES} files, unchanged", large, {"cold": False, "changing": False}),
        (f"{FILES} files, one changed", large, {"cold": False, "changing": True}),
    ]
    print(f"{'':28}" + "".join(f"{name:>16}" for name in builders))
    for title, root, how in rows:
        line = f"{title:28}"
        for run in builders.values():
            if not how["cold"]:
                run(root, False)  # fill the cache
            line += f"{measure(run, root, rounds, **how):16.3f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
