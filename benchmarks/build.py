"""Builds, pushes and pulls timed beside docker (BuildKit) and buildah, in one run.

    python -m benchmarks.build [--rounds 5] [--only TEXT ...]

Run as root; of docker and buildah, what is installed takes part (apt install docker.io
buildah). Ours is called in this process, as the worker is, and dockerd is a process that
runs already, too; our command line's figure stands beside it. Engines take turns within a round, so
that a busy moment meets all. Medians in seconds; no step has a network in any of them;
pushes and pulls go to a registry on loopback.

Where the time goes in the rows that may miss their aim, as CPU time on 2 busy cores, cgroup v1:

* RUNs, cold: of 70 ms a step, runc 1.1.5 itself takes 50, as it does in BuildKit; our process 20.
* 20,000 files, one changed: of 4 s, our process takes 1.4 to place and hash them, the kernel 1.2
  to make them (an overlay costs no more than ext4 itself), Git 1.5 to inflate 200 MB. docker
  writes each changed file twice but inflates nothing: its context is a folder.
* 200 MB, build and push: the same, and 1.1 s to compress in a thread of its own beside it. What is
  left after the build took 0.6 s in one run, and 2.8 s when it had to compress first.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engines import BASE, Buildah, Command, Engine, Ours, engines
from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.plan import host_platform
from builders.registry import Registry
from tests.builders.conftest import BUSYBOX
from tests.builders.registry.conftest import RegistryProcess

RUNS = 12
FILES = 20_000
MEMORY = "peak memory of the command"
RATIOS = (("ours", "docker"), ("ours, command", "docker"), ("ours", "buildah"))
# What a Debian with Python holds, and about as compressible: this machine's own files.
LIKE_A_BASE = ("/usr/lib/python3", "/usr/lib/python3.11", "/usr/bin", "/usr/lib/x86_64-linux-gnu",
               "/usr/share/doc", "/usr/share/perl", "/usr/lib")  # fmt: skip


@dataclass(frozen=True)
class Aim:
    """What ours may take at most: that part of docker's time, or so many seconds."""

    words: str
    of_docker: float = 0.0
    seconds: float = 0.0

    def verdict(self, figures: Mapping[str, float]) -> str:
        """Of one row's medians by engine."""
        most = self.seconds or self.of_docker * figures.get("docker", 0.0)
        if not most:
            return "no docker"
        return judged(figures["ours"], most)


AS_DOCKER = Aim("docker", of_docker=1.0)
HALF = Aim("1/2 of docker", of_docker=0.5)
TENTH = Aim("1/10 of docker", of_docker=0.1)
ASIDE = Aim("2.3 s + a sandbox", seconds=2.4)  # which takes less than 100 ms
MOST_MEMORY = 300e6 / 2**20  # MiB


@dataclass(frozen=True)
class Row:
    """One kind of work. ``prepare`` is not timed; ``run`` is."""

    title: str
    aim: Aim
    run: Callable[[Engine, int], None]
    prepare: Callable[[Engine], None] = lambda _: None
    warm: bool = True  # run once before it is timed
    heavy: bool = False  # then buildah, the slowest, takes part in two rounds alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="rows whose title holds one of these")
    options = parser.parse_args()
    # Ended from outside it cleans up as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with workspace() as home, registry(home / "registry") as host:
        base = make_base(home / "base")
        with engines(home, base) as found:
            report(found, rows(home, host, found), options.rounds, options.only)


def rows(home: Path, host: str, found: list[Engine]) -> list[Row]:
    small = Repository(home / "small", many_runs("small"), files=20, size=400)
    large = Repository(home / "large", many_runs("large"), files=FILES, size=7500)
    layer = Repository(home / "layer", f"FROM {BASE}\nCOPY src /src\n", files=FILES, size=10_000)
    stages = Repository(home / "stages", three_stages(), files=1, size=100)
    pulled = f"{host}/base:170"
    ours = next(engine for engine in found if isinstance(engine, Ours))
    publish_base(ours, home / "pulled", pulled)

    def warm(repository: Repository) -> Callable[[Engine, int], None]:
        return lambda engine, _: engine.build(repository.root, cold=False)

    def cold(repository: Repository) -> Callable[[Engine, int], None]:
        return lambda engine, _: engine.build(repository.root, cold=True)

    def build_and_push(engine: Engine, number: int) -> None:
        tag = f"{host}/layer-{engine.name.replace(', ', '-')}:{number}"
        engine.build(layer.root, cold=False, tag=tag)
        engine.push(tag)

    return [
        Row(f"{RUNS} RUNs, cold", HALF, cold(small)),
        Row("the same, unchanged", AS_DOCKER, warm(small)),
        Row("one file changed", HALF, warm(small), small.change),
        Row(f"{FILES:,} files, unchanged", TENTH, warm(large)),
        Row(f"{FILES:,} files, one changed", HALF, warm(large), large.change,
            heavy=True),
        Row("200 MB layer: build, push", HALF, build_and_push, layer.change, heavy=True),
        Row("3 stages of sleep 2", ASIDE, cold(stages), warm=False),
        Row("pull of 170 MB", AS_DOCKER, lambda engine, _: engine.pull(pulled),
            lambda engine: engine.forget(pulled), warm=False),
    ]  # fmt: skip


def report(found: list[Engine], work: list[Row], rounds: int, only: list[str]) -> None:
    names = [engine.name for engine in found]
    ratios = [(one, other) for one, other in RATIOS if {one, other} <= set(names)]
    head = "".join(f"{name:>15}" for name in names)
    shown = "".join(f"{label(one)}/{other}".rjust(16) for one, other in ratios)
    print(f"{'':28}{head}{shown}  aim at most")
    for row in work:
        if only and not any(text in row.title for text in only):
            continue
        figures = measure(found, row, rounds)
        cells = "".join(f"{figures[name]:15.3f}" for name in names)
        cells += "".join(f"{figures[one] / figures[other]:16.2f}" for one, other in ratios)
        print(f"{row.title:28}{cells}  {row.aim.words}: {row.aim.verdict(figures)}", flush=True)
    command = next(engine for engine in found if isinstance(engine, Command))
    if command.peak:
        print(f"{MEMORY:28}{'':15}{command.peak:11.0f} MiB{'':{15 * len(names) - 30}}"
              f"{'':{16 * len(ratios)}}  300 MB: {judged(command.peak, MOST_MEMORY)}")  # fmt: skip


def judged(found: float, most: float) -> str:
    return "met" if found <= most else "MISSED"


def label(name: str) -> str:
    return name.removeprefix("ours, ")


def measure(found: list[Engine], row: Row, rounds: int) -> dict[str, float]:
    """Median seconds by engine; the engines take turns."""
    times: dict[str, list[float]] = {engine.name: [] for engine in found}
    if row.warm:
        for engine in found:
            row.run(engine, 0)
    for number in range(1, rounds + 1):
        for engine in found:
            if row.heavy and number > 2 and isinstance(engine, Buildah):
                continue
            row.prepare(engine)
            started = time.perf_counter()
            row.run(engine, number)
            times[engine.name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in times.items()}


def many_runs(stamp: str) -> str:
    steps = "".join(f"RUN echo {number} {stamp} > /f{number}\n" for number in range(RUNS))
    return f"FROM {BASE}\n{steps}COPY src /src\nRUN cat /src/changing\n"


def three_stages() -> str:
    names = ("a", "b", "c")
    each = "".join(f"FROM {BASE} AS {n}\nRUN sleep 2 && echo {n} > /{n}\n" for n in names)
    return each + f"FROM {BASE}\n" + "".join(f"COPY --from={n} /{n} /{n}\n" for n in names)


class Repository:
    """A Git repository with ``files`` files in 100 folders, and one that ``change`` rewrites."""

    def __init__(self, root: Path, dockerfile: str, *, files: int, size: int) -> None:
        self.root = root
        text = prose(4 << 20)
        chance = random.Random(files)
        (root / "src").mkdir(parents=True)
        for number in range(files):
            path = root / f"src/d{number % 100}/f{number}"
            path.parent.mkdir(exist_ok=True)
            start = chance.randrange(len(text) - size)
            path.write_bytes(text[start : start + size])
        (root / "src/changing").write_text("first\n")
        (root / "Dockerfile").write_text(dockerfile)
        self._git("init", "-q")
        self._commit()
        self._git("repack", "-a", "-d", "-q")  # as a push leaves it

    def change(self, _: Engine) -> None:
        (self.root / "src/changing").write_text(f"{time.time()}\n")
        self._commit()

    def _commit(self) -> None:
        self._git("add", "-A")
        self._git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x")

    def _git(self, *words: str) -> None:
        command = ["git", "-C", str(self.root), "-c", "gc.auto=0", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def prose(size: int) -> bytes:
    """Bytes that compress about as source code does."""
    chance = random.Random(7)
    letters = "etaoinshrdlu"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(4000)]
    text = bytearray()
    while len(text) < size:
        text += " ".join(chance.choices(words, k=12)).encode() + b"\n"
    return bytes(text)


def make_base(tree: Path) -> Path:
    """A busybox and the applets that the steps use."""
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(BUSYBOX, tree / "bin/busybox")
    for name in ("sh", "echo", "cat", "sleep"):
        (tree / "bin" / name).symlink_to("busybox")
    return tree


def publish_base(ours: Ours, tree: Path, name: str) -> None:
    """An image of one layer of 170 MB in the registry."""
    left = 170 << 20
    for root in map(Path, LIKE_A_BASE):
        for path in sorted(root.rglob("*")):
            if left <= 0 or path.is_symlink() or not path.is_file():
                continue
            target = tree / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy2(path, target)
                left -= path.stat().st_size
    reference = Reference.parse(name)
    layer = ours.store.commit_tree(tree, base=0, epoch=1_600_000_000)
    config = ImageConfig(architecture=host_platform().partition("/")[2])
    image = ours.store.save_image(config, [layer], names=[reference])
    with Registry(reference.registry) as client:
        client.push(image, reference, ours.store)


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    folder.mkdir()
    process = RegistryProcess(folder)
    try:
        yield process.host
    finally:
        process.close()


@contextmanager
def workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="gantry-bench-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as folder:
        home = Path(folder)
        home.chmod(0o711)
        yield home


if __name__ == "__main__":
    sys.exit(main())
