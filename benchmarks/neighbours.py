"""What others on the machine feel of a hostile sandbox: forks, a database, another build.

    sudo .venv/bin/python benchmarks/neighbours.py [--rounds 5]

Each attack runs again and again beside a victim, a sandbox that hashes 400 MiB on one core; the
same victim without an attack is what its time is compared with. Meanwhile the host starts
/bin/true and commits rows to an SQLite database in WAL mode, as the service does. Aims: the 99th
percentile of a fork stays below 200 ms, every commit succeeds, and the other build takes at most
a quarter longer. The same bombs in ``podman run`` with the same limits stand beside; podman has
no limit of a layer's bytes and files on an overlay without quotas, so those are ours alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import host
from runtime.sandbox import run
from runtime.snapshots import LowerDir, mount_rootfs
from runtime.spec import MIB, IdRange, Limits, SandboxSpec
from runtime.state import StateDirectory

VICTIM, ATTACKER = IdRange(2_100_000_000), IdRange(2_100_065_536)
WORK = "dd if=/dev/zero bs=1M count=400 2>/dev/null | sha256sum"
LIMITS = Limits(
    memory=128 * MIB, cpus=1, pids=256, shm=512 * MIB, timeout=4, disk=256 * MIB, inodes=5_000
)
ATTACKS = {
    "fork bomb": "bomb() { bomb | bomb & bomb; }; bomb",
    "memory bomb": "x=x; while :; do x=$x$x; done",
    "tmpfs bomb": "dd if=/dev/zero of=/dev/shm/x bs=1M count=512; sleep 9",
    "page cache": "while dd if=/dev/zero of=/tmp/x bs=1M count=200; do cat /tmp/x >/dev/null; done",
    "bytes of the disk": "dd if=/dev/zero of=/tmp/x bs=1M count=4000",
    "files of the disk": "i=0; while :; do : > /tmp/$i; i=$((i + 1)); done",
    "every core": "for i in 1 2 3 4; do (while :; do :; done) & done; wait",
}
OURS_ALONE = {"bytes of the disk", "files of the disk", "page cache"}


@dataclass
class Felt:
    """Seconds that each fork, commit and run of the victim took, and how the attacks ended."""

    forks: list[float] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)
    victim: list[float] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    area = Path(tempfile.mkdtemp(prefix="gantry-bench-"))
    area.chmod(0o711)
    try:
        report({name: feel(area, attack, rounds) for name, attack in rows(area)})
    finally:
        shutil.rmtree(area)


def rows(area: Path) -> Iterator[tuple[str, Callable[[], str] | None]]:
    lower = make_root(area / "busybox")
    state = StateDirectory(area / "state")
    yield "nothing beside it", None
    for name, script in ATTACKS.items():
        yield f"ours, {name}", lambda script=script: ours(state, lower, "attacker", script)
        if name not in OURS_ALONE and shutil.which("podman"):
            yield f"podman, {name}", lambda script=script: podman(lower, script)


def feel(area: Path, attack: Callable[[], str] | None, rounds: int) -> Felt:
    felt, over = Felt(), threading.Event()
    state, lower = StateDirectory(area / "state"), LowerDir(area / "busybox")
    with (
        beside(lambda: forks(felt, over)),
        beside(lambda: commits(area, felt, over)),
        beside(lambda: again(attack, felt, over)),
    ):
        try:
            for _ in range(rounds):
                started = time.perf_counter()
                end = ours(state, lower, "victim", WORK)
                felt.victim.append(time.perf_counter() - started)
                if end != "exited 0":
                    raise SystemExit(f"the victim fell: {end}")
        finally:
            over.set()
    return felt


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """A thread; what it raised is raised when it has ended."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if raised:
        raise raised[0]


def again(attack: Callable[[], str] | None, felt: Felt, over: threading.Event) -> None:
    while attack is not None and not over.is_set():
        felt.ends.append(attack())


def forks(felt: Felt, over: threading.Event) -> None:
    while not over.wait(0.01):
        started = time.perf_counter()
        os.waitpid(os.posix_spawn("/bin/true", ["/bin/true"], {}), 0)
        felt.forks.append(time.perf_counter() - started)


def commits(area: Path, felt: Felt, over: threading.Event) -> None:
    with closing(sqlite3.connect(area / "rows.sqlite3", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("CREATE TABLE IF NOT EXISTS row (text)")
        while not over.wait(0.01):
            started = time.perf_counter()
            database.execute("INSERT INTO row VALUES (?)", ("x" * 500,))
            felt.commits.append(time.perf_counter() - started)


def ours(state: StateDirectory, lower: LowerDir, name: str, script: str) -> str:
    """How it ended: the outcome, and the exit code where it exited."""
    ids, limits = (ATTACKER, LIMITS) if name == "attacker" else (VICTIM, Limits(cpus=1))
    with state.scratch() as home:
        (home / "layers").mkdir()
        with mount_rootfs([lower], ids=ids, scratch=home / "layers", target=home / "root") as root:
            spec = SandboxSpec(
                id=name, rootfs=root.path, args=("/bin/sh", "-c", script), ids=ids,
                limits=limits, upper=root.upper,
            )  # fmt: skip
            receipt = run(spec, state=state)
    return f"exited {receipt.exit_code}" if receipt.outcome == "exited" else receipt.outcome


def podman(lower: LowerDir, script: str) -> str:
    command = [
        *("podman", "--runtime", host.oci_runtime().name, "run", "--rm", "--network", "none"),
        *("--memory", "128m", "--memory-swap", "128m", "--cpus", "1", "--pids-limit", "256"),
        *("--shm-size", "512m", "--timeout", "4"),
        *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
        *("--rootfs", f"{lower.path}:O", "/bin/sh", "-c", script),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return f"exited {done.returncode}"


def make_root(path: Path) -> LowerDir:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("busybox is missing: apt-get install busybox-static")
    for name in ("bin", "tmp"):
        (path / name).mkdir(parents=True)
    path.chmod(0o755)
    (path / "tmp").chmod(0o1777)
    shutil.copy(busybox, path / "bin/busybox")
    for name in ("sh", "dd", "sha256sum", "sleep", "cat"):
        (path / "bin" / name).symlink_to("busybox")
    return LowerDir(path)


def report(found: dict[str, Felt]) -> None:
    alone = statistics.median(next(iter(found.values())).victim)
    print(f"{'beside it':<28}{'fork p99':>10}{'commit p99':>12}{'build':>8}   ended as")
    for name, felt in found.items():
        fork, commit = (
            f"{statistics.quantiles(times, n=100)[-1] * 1000:.1f} ms"
            for times in (felt.forks, felt.commits)
        )
        ratio = statistics.median(felt.victim) / alone
        ends = ", ".join(sorted(set(felt.ends)))
        print(f"{name:<28}{fork:>10}{commit:>12}{ratio:>7.2f}x   {ends}")


if __name__ == "__main__":
    main()
