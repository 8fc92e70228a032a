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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.reap import reap
from runtime.snapshots import LowerDir
from runtime.spec import IdRange, Outcome
from runtime.state import StateDirectory
from tests.runtime.conftest import (
    IDS,
    PREFIX,
    Sandboxes,
    cgroups_like,
    mounts,
    open_descriptors,
    processes_of,
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


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_left_behind_dies_with_the_sandbox(daemon: str, sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh(f"{daemon}\necho left")
    assert ran.receipt.ok and ran.out == "left\n"
    assert ran.receipt.wall < 5
    assert processes_of(IDS) == []


def start_elsewhere(area: Path, root: LowerDir, script: str) -> subprocess.Popen[bytes]:
    """A sandbox owned by another process: ``python -m runtime run``."""
    name = f"{PREFIX}{secrets.token_hex(4)}"
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "runtime", "run", "--state", str(area / "state")),
            *(
                "--rootfs",
                str(root.path),
                "--ids",
                str(OTHER_IDS.base),
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
    assert len(processes_of(OTHER_IDS)) >= 2
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert wait_until(lambda: processes_of(OTHER_IDS) == [], 5)
    assert wait_until(lambda: is_clean(state), 5)


def test_killed_at_random_points_it_leaves_nothing(
    area: Path, busybox: LowerDir, state: StateDirectory, nothing_left: None
) -> None:
    for _ in range(12):
        owner = start_elsewhere(area, busybox, "setsid sleep 60 & sleep 0.1")
        time.sleep(0.08 + random.random() * 0.3)
        owner.kill()
        owner.wait()
        assert owner.stdout is not None
        owner.stdout.close()
    assert wait_until(lambda: processes_of(OTHER_IDS) == [], 5)
    reap(state)
    assert wait_until(lambda: is_clean(state), 5)


def test_reaping_does_not_touch_the_living(sandboxes: Sandboxes) -> None:
    reaped: list[str] = []
    up = threading.Event()

    def reap_meanwhile() -> None:
        up.wait(10)
        reaped.extend(reap(sandboxes.state))

    reaper = threading.Thread(target=reap_meanwhile)
    reaper.start()
    ran = sandboxes.sh("echo up; sleep 0.5; echo alive", on_output=lambda stream, data: up.set())
    reaper.join()
    assert ran.out == "up\nalive\n"
    assert reaped == []


def test_an_unfinished_box_of_a_dead_owner_is_removed(state: StateDirectory) -> None:
    (state.boxes_dir / ".new-1.1.nowhere-x").mkdir()
    (state.boxes_dir / "half").mkdir()
    assert len(reap(state)) == 2
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


def test_many_at_once_and_in_sequence_leave_descriptors_flat(sandboxes: Sandboxes) -> None:
    sandboxes.sh("true")
    before = open_descriptors()
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: sandboxes.sh(f"exit {n}").receipt, range(24)))
    assert [receipt.exit_code for receipt in outcomes] == list(range(24))
    assert {receipt.outcome for receipt in outcomes} == {Outcome.EXITED}
    assert open_descriptors() == before


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
