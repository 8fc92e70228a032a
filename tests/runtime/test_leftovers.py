"""Nothing of a sandbox survives it: not daemons, and not the death of whoever ran it."""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from runtime import syscalls, use
from runtime.network import open_network, open_private
from runtime.reap import reap
from runtime.sandbox import run
from runtime.snapshots import LowerDir, mount_rootfs
from runtime.spec import MIB, IdRange, Limits, Network, Outcome, Parent, SandboxSpec
from runtime.state import StateDirectory
from tests.runtime.conftest import (
    IDS,
    PREFIX,
    Sandboxes,
    cgroups_like,
    mounts,
    open_descriptors,
    processes_of,
    reap_here,
    wait_until,
)

pytestmark = pytest.mark.root

DAEMONS = [
    "sleep 60 &",
    "setsid sleep 60 &",
    "(setsid sh -c 'sleep 60 & sleep 60' &) &",
    "nohup sleep 60 >/dev/null 2>&1 </dev/null &",
    "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' >/dev/null 2>&1 &",
    "start-stop-daemon -S -b -x /bin/sleep -- 60",
    "(trap '' TERM; sleep 60; exec sh) & disown 2>/dev/null",
    "for i in 1 2 3 4 5; do (for j in 1 2 3 4; do setsid sleep 60 & done); done",
]
OTHER_IDS = IdRange(IDS.base + 70000)
NEIGHBOUR_IDS = IdRange(IDS.base + 140000)
KILLS = int(os.environ.get("SANDBOX_TEST_KILLS", "10"))
IN_SEQUENCE = int(os.environ.get("SANDBOX_TEST_IN_SEQUENCE", "12"))
AT_ONCE = 40


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_left_behind_dies_with_the_sandbox(daemon: str, sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh(f"{daemon}\necho left")
    assert ran.receipt.ok and ran.out == "left\n"
    assert ran.receipt.wall < 5
    assert processes_of(IDS) == []


def start_elsewhere(
    area: Path, root: LowerDir, script: str, ids: IdRange = OTHER_IDS
) -> subprocess.Popen[bytes]:
    """A sandbox owned by another process: ``python -m runtime run``."""
    name = f"{PREFIX}{secrets.token_hex(4)}"
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "runtime", "run", "--state", str(area / "state")),
            *(
                "--rootfs",
                str(root.path),
                "--ids",
                str(ids.base),
                "--name",
                name,
                "--",
                "/bin/sh",
                "-c",
                script,
            ),
        ],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )


@pytest.mark.parametrize("moment", ["paused", "exec", "private network"])
def test_killed_at_an_odd_moment_nothing_is_left_either(
    moment: str, area: Path, busybox: LowerDir, state: StateDirectory, nothing_left: None
) -> None:
    """The owner while its sandbox is frozen, or while another's program runs in it."""
    owner = start_elsewhere(area, busybox, "setsid sleep 60 & echo up; sleep 60")
    assert owner.stdout is not None and owner.stdout.readline() == b"up\n"
    id = use.listed(state)[0].id
    with ThreadPoolExecutor(1) as pool:
        if moment == "paused":
            use.pause(state, id)
        elif moment == "exec":
            before = len(processes_of(OTHER_IDS))
            ended = pool.submit(use.execute, state, id, ["sleep", "60"])
            assert wait_until(lambda: len(processes_of(OTHER_IDS)) > before)
        else:
            pool.submit(fork_a_member, state, busybox).result(20)
        owner.kill()
        owner.wait()
        owner.stdout.close()
        assert wait_until(lambda: processes_of(OTHER_IDS) == [], 5)
        if moment == "exec":
            assert ended.result(10).exit_code != 0
    assert wait_until(lambda: is_clean(state), 10)
    assert wait_until(lambda: not any(state.networks_dir.iterdir()), 10)


def fork_a_member(state: StateDirectory, layer: LowerDir) -> None:
    """A member of a private network with egress, killed while a sandbox of it runs."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with (
                state.scratch() as home,
                open_private(state=state, with_egress=True) as network,
                network.member("db") as db,
            ):
                (home / "layers").mkdir()
                with mount_rootfs(
                    [layer], ids=OTHER_IDS, scratch=home / "layers", target=home / "root"
                ) as root:
                    spec = SandboxSpec(
                        id=f"{PREFIX}member", rootfs=root.path, ids=OTHER_IDS,
                        args=("/bin/sh", "-c", "echo up; sleep 60"),
                        network=Network.PRIVATE, netns=db.netns,
                    )  # fmt: skip
                    run(
                        spec, state=state, on_output=lambda s, d: os.write(write_end, b"x") and None
                    )
        finally:
            os._exit(1)
    os.close(write_end)
    assert os.read(read_end, 1) == b"x"
    os.close(read_end)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def is_clean(state: StateDirectory) -> bool:
    return (
        processes_of(OTHER_IDS) == []
        and cgroups_like(PREFIX) == []
        and not any(str(state.root) in line for line in mounts())
        and not any(any(d.iterdir()) for d in (state.boxes_dir, state.scratch_dir))
    )


def test_killing_the_owner_kills_the_sandbox_within_five_seconds(
    area: Path, busybox: LowerDir, state: StateDirectory, nothing_left: None
) -> None:
    owner = start_elsewhere(area, busybox, "setsid sleep 60 & echo up; sleep 60")
    assert owner.stdout is not None and owner.stdout.readline() == b"up\n"
    assert wait_until(lambda: len(processes_of(OTHER_IDS)) >= 2)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert wait_until(lambda: processes_of(OTHER_IDS) == [], 5)
    assert wait_until(lambda: is_clean(state), 5)


def work_for_ever(state: StateDirectory, layer: LowerDir, started: int) -> None:
    """A worker: layers, a network and a sandbox, again and again. Never returns."""
    os.write(started, b"x")
    while True:
        with state.scratch() as home:
            (home / "layers").mkdir()
            with (
                mount_rootfs(
                    [layer], ids=OTHER_IDS, scratch=home / "layers", target=home / "root"
                ) as root,
                open_network(Network.EGRESS, state=state) as network,
            ):
                assert network is not None
                spec = SandboxSpec(
                    id=f"{PREFIX}{secrets.token_hex(4)}",
                    rootfs=root.path,
                    upper=root.upper,
                    args=("/bin/sh", "-c", "setsid sleep 60 & sleep 0.05"),
                    ids=OTHER_IDS,
                    limits=Limits(memory=64 * MIB, pids=32, timeout=30, disk=MIB),
                    network=Network.EGRESS,
                    netns=network.netns,
                )
                run(spec, state=state, parent=Parent(f"{PREFIX}parent"))


def fork_worker(state: StateDirectory, layer: LowerDir) -> int:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work_for_ever(state, layer, write_end)
        finally:
            os._exit(1)  # never back into the test
    os.close(write_end)
    assert os.read(read_end, 1) == b"x"
    os.close(read_end)
    return child


def devices_of(state: StateDirectory) -> dict[str, str]:
    """Network devices of a state directory's networks, with the index that no later one has."""
    found = {}
    for path in state.networks_dir.iterdir():
        with suppress(OSError):
            found[path.name] = Path(f"/sys/class/net/gtw{path.name}/ifindex").read_text()
    return found


def is_there(device: str, index: str) -> bool:
    try:
        return Path(f"/sys/class/net/gtw{device}/ifindex").read_text() == index
    except OSError:
        return False


@pytest.fixture
def of_another_program(area: Path) -> Iterator[Callable[[], list[str]]]:
    """A cgroup with a process, a network namespace, a cable, a mount and a folder that are not
    ours, though they are as near as can be; called, it says which of them are there."""
    name = f"x{os.getpid() % 100000}"
    tops = [top for top in Path("/sys/fs/cgroup").iterdir() if (top / "gantry").is_dir()]
    top = tops[0] if tops else Path("/sys/fs/cgroup")
    cgroup, mounted, folder = top / f"gantry-{name}", area / "mounted", area / "state-of-others"
    for path in (cgroup, mounted, folder):
        path.mkdir()
    sleeper = subprocess.Popen(["sleep", "600"])
    (cgroup / "cgroup.procs").write_text(f"{sleeper.pid}")
    syscalls.mount("overlay-of-others", mounted, "tmpfs", 0)
    for command in (f"netns add {name}", f"link add {name} type veth peer name {name}p"):
        subprocess.run(["ip", *command.split()], check=True)

    def there() -> list[str]:
        return [
            *(["process"] if sleeper.poll() is None else []),
            *(["cgroup"] if str(sleeper.pid) in (cgroup / "cgroup.procs").read_text() else []),
            *(["mount"] if any(f" {mounted} " in line for line in mounts()) else []),
            *(["folder"] if folder.is_dir() else []),
            *(["netns"] if Path(f"/run/netns/{name}").exists() else []),
            *(["cable"] if Path(f"/sys/class/net/{name}").exists() else []),
        ]

    yield there
    sleeper.kill()
    sleeper.wait()
    syscalls.umount2(mounted)
    assert wait_until(lambda: (cgroup.rmdir() if cgroup.exists() else None) is None)
    for command in (f"netns delete {name}", f"link delete {name}"):
        subprocess.run(["ip", *command.split()], check=False)


@pytest.mark.timeout(600)
def test_killed_at_random_points_it_leaves_nothing_and_touches_nothing_else(
    area: Path,
    busybox: LowerDir,
    state: StateDirectory,
    nothing_left: None,
    of_another_program: Callable[[], list[str]],
) -> None:
    """Ten kills; ``SANDBOX_TEST_KILLS=50`` for the long form. A neighbour lives through it all."""
    others = of_another_program()
    assert len(others) == 6
    neighbour = start_elsewhere(area, busybox, "echo up; while :; do sleep 1; done", NEIGHBOUR_IDS)
    assert neighbour.stdout is not None and neighbour.stdout.readline() == b"up\n"
    living = mounts_and_boxes(state)
    slowest = 0.0
    for number in range(KILLS):
        child = fork_worker(state, busybox)
        time.sleep(random.random() * 0.4)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed = time.monotonic()
        devices = devices_of(state)
        assert wait_until(lambda: processes_of(OTHER_IDS) == [], 5), f"kill {number}"
        slowest = max(slowest, time.monotonic() - killed)
        reap(state)
        assert wait_until(lambda: mounts_and_boxes(state) == living, 5), f"kill {number}"
        assert not any(is_there(*device) for device in devices.items())
        assert cgroups_like(f"{PREFIX}parent") == []
    print(f"{KILLS} kills, slowest to be without a process: {slowest:.2f} s")
    assert neighbour.poll() is None and processes_of(NEIGHBOUR_IDS) != []
    assert of_another_program() == others
    neighbour.send_signal(signal.SIGINT)
    assert neighbour.wait(10) == 137
    neighbour.stdout.close()
    assert wait_until(lambda: is_clean(state), 5)


def mounts_and_boxes(state: StateDirectory) -> tuple[int, list[str]]:
    directories = (state.boxes_dir, state.networks_dir, state.scratch_dir)
    there = sorted(str(path) for directory in directories for path in directory.iterdir())
    return sum(str(state.root) in line for line in mounts()), there


def test_reaping_does_not_touch_the_living(sandboxes: Sandboxes) -> None:
    reaped: list[str] = []
    up = threading.Event()

    def reap_meanwhile() -> None:
        up.wait(10)
        reaped.extend(reap_here(sandboxes.state))

    reaper = threading.Thread(target=reap_meanwhile)
    reaper.start()
    ran = sandboxes.sh("echo up; sleep 0.5; echo alive", on_output=lambda stream, data: up.set())
    reaper.join()
    assert ran.out == "up\nalive\n"
    assert reaped == []


DEEP = "cd /tmp; i=0; while [ $i -lt 1500 ]; do mkdir d && cd d; i=$((i + 1)); done; echo made"


def test_a_tree_of_any_depth_is_removed_after_its_run(
    area: Path, busybox: LowerDir, state: StateDirectory, nothing_left: None
) -> None:
    """Deeper than a program may call itself, and than it may have files open."""
    owner = start_elsewhere(area, busybox, DEEP)
    assert owner.communicate(timeout=60)[0] == b"made\n"
    assert owner.returncode == 0
    assert list(state.scratch_dir.iterdir()) == []


def test_a_tree_of_any_depth_does_not_stop_the_reaper(
    area: Path, busybox: LowerDir, state: StateDirectory, nothing_left: None
) -> None:
    owner = start_elsewhere(area, busybox, f"{DEEP}; sleep 60")
    assert owner.stdout is not None and owner.stdout.readline() == b"made\n"
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert wait_until(lambda: is_clean(state), 30)


def reaped(state: StateDirectory) -> list[str]:
    """Of this state; mounts of whoever died on the machine are taken away as well."""
    return [line for line in reap(state) if not line.startswith("unmounted ")]


def test_what_cannot_be_removed_does_not_keep_the_reaper_from_the_rest(
    state: StateDirectory,
) -> None:
    for number in (1, 2):
        (state.scratch_dir / f"{number}.1.nowhere-x" / "in" / "it").mkdir(parents=True)
    busy = state.scratch_dir / "1.1.nowhere-x/in"
    syscalls.mount("none", busy, "tmpfs", 0)
    try:
        first, second = reaped(state)
    finally:
        syscalls.umount2(busy)
    assert first.endswith("cannot be removed (Invalid cross-device link); it is tried again later")
    assert second.startswith("removed the directory")
    assert len(reaped(state)) == 1
    assert list(state.scratch_dir.iterdir()) == []


def test_an_unfinished_box_of_a_dead_owner_is_removed(state: StateDirectory) -> None:
    (state.boxes_dir / ".new-1.1.nowhere-x").mkdir()
    (state.boxes_dir / "half" / "oci").mkdir(parents=True)
    assert len(reaped(state)) == 2
    assert list(state.boxes_dir.iterdir()) == []


def test_an_id_in_use_is_refused(sandboxes: Sandboxes) -> None:
    from runtime.errors import SpecError

    up = threading.Event()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(
            sandboxes.sh, "echo; sleep 1", id=f"{PREFIX}same", on_output=lambda s, d: up.set()
        )
        assert up.wait(10)
        with pytest.raises(SpecError, match="same exists already"):
            sandboxes.sh("true", id=f"{PREFIX}same")
        assert first.result().receipt.ok


def test_forty_run_at_once(sandboxes: Sandboxes) -> None:
    """Within one budget of 2 cores and 4 GiB, each with half of its own share written to."""
    budget = Parent(f"{PREFIX}forty", Limits(memory=4096 * MIB, cpus=2))
    sandboxes.sh("true")
    before = open_descriptors()
    all_up, cancel = threading.Barrier(AT_ONCE + 1, timeout=60), threading.Event()

    def one(number: int) -> Outcome:
        return sandboxes.sh(
            "dd if=/dev/zero of=/dev/shm/x bs=1M count=48 2>/dev/null; echo up; sleep 60",
            parent=budget,
            limits=Limits(memory=100 * MIB, pids=16, timeout=60, cpus=0.5),
            on_output=lambda stream, data: all_up.wait() and None,
            cancel=cancel,
        ).receipt.outcome

    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = [pool.submit(one, number) for number in range(AT_ONCE)]
        all_up.wait()
        cancel.set()
        assert {outcome.result() for outcome in outcomes} == {Outcome.CANCELLED}
    assert open_descriptors() == before


@pytest.mark.timeout(600)
def test_many_in_sequence_leave_descriptors_mounts_and_cgroups_flat(sandboxes: Sandboxes) -> None:
    """Twelve; ``SANDBOX_TEST_IN_SEQUENCE=1000`` for the long form."""
    sandboxes.sh("true")
    mine = str(sandboxes.state.root.parent)

    def there() -> tuple[int, int, list[str], int]:
        held = sum(mine in line for line in mounts())
        return open_descriptors(), held, cgroups_like(PREFIX), threading.active_count()

    before = there()
    for number in range(IN_SEQUENCE):
        assert sandboxes.sh(f"exit {number % 7}").receipt.exit_code == number % 7
    assert there() == before


def test_a_forked_worker_has_a_watcher_of_its_own(sandboxes: Sandboxes) -> None:
    """Celery forks its pool after the modules are imported, and perhaps after a first run."""
    sandboxes.sh("true")
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        sandboxes.sh("echo; sleep 60", on_output=lambda s, d: os.write(write_end, b"x") and None)
        os._exit(0)
    os.close(write_end)
    assert os.read(read_end, 1) == b"x"
    os.close(read_end)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert wait_until(lambda: processes_of(IDS) == [], 5)
    assert wait_until(lambda: not any(sandboxes.state.boxes_dir.iterdir()), 5)
