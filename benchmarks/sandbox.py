"""From start to exit of /bin/true: our sandbox with everything on, against the bare tools.

    sudo .venv/bin/python benchmarks/sandbox.py [--rounds 30]

Contestants run in turn, round by round, so that a busy moment meets them all. "bare runc"
runs the very config.json that ours builds, on a mounted root, with limits, seccomp and
all seven namespaces; ours adds the cgroup, counters, verdict, watcher and clean-up, and
in its second row the overlay with idmapped layers. Below the table stand the aims, and
whether they are met.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import host
from runtime.network import PrivateNetwork, later, open_network, open_private
from runtime.sandbox import run
from runtime.snapshots import LowerDir, mount_rootfs
from runtime.spec import MIB, IdRange, Limits, Network, SandboxSpec
from runtime.state import StateDirectory

IDS = IdRange(2_100_000_000)
LIMITS = Limits(memory=256 * MIB, cpus=2, pids=256, timeout=60)
BARE = "bare OCI runtime, same bundle"
NO_NETWORK = "ours, no network"
OWN = "ours, egress, a network of its own"
MEMBER, PRIVATE = "ours, private network, a new member", "ours, private network of its own"
# (ours, what it is compared with, the greatest ratio of the medians)
AIMS = (
    *((name, BARE, 1.5) for name in (NO_NETWORK, OWN, MEMBER, PRIVATE)),
    *((NO_NETWORK, f"{engine} run, no network", 0.25) for engine in ("docker", "podman")),
    *(
        (name, f"{engine} run, its bridge", 0.25)
        for engine in ("docker", "podman")
        for name in (OWN, MEMBER, PRIVATE)
    ),
)
CLIENT = Path("/usr/bin/docker")  # the distribution's; others may not speak to its engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    area = Path(tempfile.mkdtemp(prefix="gantry-bench-"))
    area.chmod(0o711)
    try:
        with ExitStack() as stack:
            report(measure(contestants(area, stack), rounds))
    finally:
        later.settle()
        shutil.rmtree(area)


def contestants(area: Path, stack: ExitStack) -> dict[str, Callable[[], None]]:
    """Name -> one run of /bin/true. The first is what the others are compared with."""
    lower = make_root(area / "busybox")
    state = StateDirectory(area / "state")
    scratch = area / "scratch"
    scratch.mkdir()
    rootfs = stack.enter_context(
        mount_rootfs([lower], ids=IDS, scratch=scratch, target=area / "root")
    )
    plain = SandboxSpec(id="bench", rootfs=rootfs.path, args=("/bin/true",), ids=IDS, limits=LIMITS)
    network = stack.enter_context(open_network(Network.EGRESS, state=state))
    assert network is not None
    shared = SandboxSpec(
        id="bench", rootfs=rootfs.path, args=("/bin/true",), ids=IDS, limits=LIMITS,
        network=Network.EGRESS, netns=network.netns,
    )  # fmt: skip
    own = SandboxSpec(
        id="bench", rootfs=rootfs.path, args=("/bin/true",), ids=IDS, limits=LIMITS,
        network=Network.EGRESS,
    )  # fmt: skip

    def ours(spec: SandboxSpec) -> Callable[[], None]:
        return lambda: check(run(spec, state=state).ok)

    def with_layers() -> None:
        with state.scratch() as home:
            (home / "layers").mkdir()
            with mount_rootfs(
                [lower], ids=IDS, scratch=home / "layers", target=home / "root"
            ) as root:
                spec = SandboxSpec(
                    id="bench", rootfs=root.path, args=("/bin/true",), ids=IDS, limits=LIMITS
                )
                check(run(spec, state=state).ok)

    found: dict[str, Callable[[], None]] = {
        BARE: bare(area, plain, state),
        NO_NETWORK: ours(plain),
        "ours, and mounting the layers": with_layers,
        "ours, egress, network shared by steps": ours(shared),
        OWN: ours(own),
    }
    found |= private(state, plain, stack)
    found |= engines(area, lower, stack)
    return found


def private(
    state: StateDirectory, plain: SandboxSpec, stack: ExitStack
) -> dict[str, Callable[[], None]]:
    """A member of one private network each time, and a private network of its own each time."""
    shared = stack.enter_context(open_private(state=state))

    def join(network: PrivateNetwork) -> None:
        with network.member("bench") as handle:
            spec = replace(plain, network=Network.PRIVATE, netns=handle.netns)
            check(run(spec, state=state).ok)

    def alone() -> None:
        with open_private(state=state) as network:
            join(network)

    return {
        MEMBER: lambda: join(shared),
        PRIVATE: alone,
    }


def check(ok: bool) -> None:
    if not ok:
        raise SystemExit("a contestant failed")


def make_root(path: Path) -> LowerDir:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("busybox is missing: apt-get install busybox-static")
    (path / "bin").mkdir(parents=True)
    path.chmod(0o755)
    shutil.copy(busybox, path / "bin/busybox")
    (path / "bin/true").symlink_to("busybox")
    return LowerDir(path)


def bare(area: Path, spec: SandboxSpec, state: StateDirectory) -> Callable[[], None]:
    """The OCI runtime alone, on a config.json that a real run has written."""
    bundle = area / "bundle"

    def keep(*_: object) -> None:
        box = next(state.boxes_dir.iterdir())
        shutil.copytree(box, bundle, ignore=shutil.ignore_patterns("oci*", "record.json"))

    talking = SandboxSpec(
        id="bench", rootfs=spec.rootfs, args=("/bin/busybox", "echo"), ids=IDS, limits=LIMITS
    )
    check(run(talking, state=state, on_output=keep).ok)
    config = bundle / "config.json"
    text = config.read_text().replace('"/bin/busybox", "echo"', '"/bin/true"')
    config.write_text(text.replace(str(state.boxes_dir / "bench"), str(bundle)))
    bundle.chmod(0o711)
    runtime = str(host.oci_runtime().path)
    return program(runtime, "--root", str(area / "oci"), "run", "--bundle", str(bundle), "bare")


def program(*args: str) -> Callable[[], None]:
    def once() -> None:
        done = subprocess.run(
            args, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{' '.join(args[:3])}: {done.stderr.decode()}")

    return once


def engines(area: Path, lower: LowerDir, stack: ExitStack) -> dict[str, Callable[[], None]]:
    """podman and docker, each as far as it is installed and works here."""
    found: dict[str, Callable[[], None]] = {}
    limits = ("--memory", "256m", "--cpus", "2", "--pids-limit", "256")
    if shutil.which("podman"):
        ulimits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
        runtime = ("--runtime", host.oci_runtime().name)
        once = program(
            "podman", *runtime, "run", "--rm", "--network", "none", *limits, *ulimits,
            "--rootfs", str(lower.path), "/bin/true",
        )  # fmt: skip
        add_if_it_works(found, "podman run, no network", once)
        bridged = program(
            "podman", *runtime, "run", "--rm", "--network", "podman", *limits, *ulimits,
            "--rootfs", str(lower.path), "/bin/true",
        )  # fmt: skip
        add_if_it_works(found, "podman run, its bridge", bridged)
    if CLIENT.exists() and shutil.which("dockerd"):
        found |= docker(area, lower, stack, limits)
    else:
        print("Docker's engine is not installed: no rows of it.", file=sys.stderr)
    return found


def docker(
    area: Path, lower: LowerDir, stack: ExitStack, limits: tuple[str, ...]
) -> dict[str, Callable[[], None]]:
    """Against an engine of its own, which is ended with ``stack``; the machine's is left alone."""
    root, at = area / "docker", area / "docker.sock"
    engine = subprocess.Popen(
        [
            # Its bridge and its firewall in a network of its own, which goes with it.
            *("unshare", "--net", "dockerd", "--data-root", f"{root}/data"),
            *("--exec-root", f"{root}/exec"),
            *("--pidfile", f"{root}.pid", "--host", f"unix://{at}"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(engine.wait, 30)
    stack.callback(engine.terminate)
    if not answers(at):
        print("Docker's engine does not start here.", file=sys.stderr)
        return {}
    client = (str(CLIENT), "--host", f"unix://{at}")
    tar = subprocess.run(["tar", "-C", str(lower.path), "-c", "."], check=True, capture_output=True)
    subprocess.run(
        [*client, "import", "-", "bench"], input=tar.stdout, check=True, capture_output=True
    )
    run_it = (*client, "run", "--rm", *limits, "--ulimit", "nofile=1024:1024")
    found: dict[str, Callable[[], None]] = {}
    add_if_it_works(
        found, "docker run, no network", program(*run_it, "--network", "none", "bench", "/bin/true")
    )
    add_if_it_works(found, "docker run, its bridge", program(*run_it, "bench", "/bin/true"))
    return found


def answers(at: Path) -> bool:
    """Whether an engine listens there, within half a minute."""
    for _ in range(300):
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(str(at)) == 0:
                return True
        time.sleep(0.1)
    return False


def add_if_it_works(
    found: dict[str, Callable[[], None]], name: str, once: Callable[[], None]
) -> None:
    try:
        once()
    except SystemExit as error:
        print(f"{name} does not work here: {error}", file=sys.stderr)
    else:
        found[name] = once


def measure(found: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 1):
        for name, once in found.items():
            started = time.perf_counter()
            once()
            if number:
                times[name].append(time.perf_counter() - started)
    return times


def report(times: dict[str, list[float]]) -> None:
    base = statistics.median(times[BARE])
    print(f"{'start to exit of /bin/true':<40}{'median':>9}{'best':>9}{'p95':>9}{'ratio':>8}")
    for name, seconds in times.items():
        median, ordered = statistics.median(seconds), sorted(seconds)
        p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
        row = "".join(f"{value * 1000:>6.1f} ms" for value in (median, ordered[0], p95))
        print(f"{name:<40}{row}{median / base:>7.2f}x")
    print()
    for ours, other, most in AIMS:
        if ours in times and other in times:
            ratio = statistics.median(times[ours]) / statistics.median(times[other])
            verdict = "met" if ratio <= most else "MISSED"
            print(f"{ours} / {other}: {ratio:.2f}, aim at most {most}: {verdict}")


if __name__ == "__main__":
    main()
