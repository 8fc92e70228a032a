"""Real processes under the supervisor: ready, killed, started again, stopped, orphaned."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ciserver.config import Config
from ciserver.ops.children import Child, log_of
from ciserver.ops.errors import OpsError
from ciserver.ops.launch import CHECKOUT
from ciserver.ops.ready import log_says
from ciserver.ops.supervisor import supervise
from tests.ops.conftest import free_port

pytestmark = pytest.mark.root

# Says its process id and who it is, starts a process of its own, and waits.
TALKER = 'echo "I am $$ $(id -un)"; sleep 1000 & echo "mine is $!"; wait'


def talker(config: Config, name: str = "talker", script: str = TALKER, **options: object) -> Child:
    log = log_of(config, name)
    return Child(
        name=name,
        command=("/bin/sh", "-c", script),
        stage=0,
        as_service_user=bool(options.get("as_service_user", False)),
        ready=lambda: log_says(log, b"mine is"),
        ready_seconds=5,
        stop_seconds=1,
    )


class Stage:
    """Runs children while ``play`` acts on them; remembers what the supervisor said."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.said: list[str] = []

    def run(self, children: list[Child], play: Callable[[], None] = lambda: None) -> None:
        async def main() -> None:
            stop = asyncio.Event()
            tasks = []

            async def act() -> None:
                try:
                    await asyncio.to_thread(play)
                finally:
                    stop.set()

            def started() -> None:
                tasks.append(asyncio.create_task(act()))

            await supervise(children, self.config, self._say, stop=stop, started=started)
            for task in tasks:
                await task

        asyncio.run(main())

    def _say(self, name: str, what: str) -> None:
        self.said.append(f"{name} {what}")

    def words(self, start: str, name: str = "talker") -> list[str]:
        """The last words of the log's lines that begin with ``start``."""
        lines = log_of(self.config, name).read_text().splitlines()
        return [line.removeprefix(start).strip() for line in lines if line.startswith(start)]

    def pids(self, name: str = "talker") -> list[int]:
        return [int(word.split()[0]) for word in self.words("I am", name)]

    def grandchildren(self) -> list[int]:
        return [int(word) for word in self.words("mine is")]


@pytest.fixture
def stage(prepared: Config) -> Stage:
    return Stage(prepared)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def kill(pid: int) -> None:
    """Until it is dead: what it takes from a socket meanwhile dies with it."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_child_that_is_killed_comes_back_without_its_orphans(stage: Stage) -> None:
    def play() -> None:
        os.kill(stage.pids()[0], signal.SIGKILL)
        until(lambda: len(stage.grandchildren()) == 2)

    stage.run([talker(stage.config)], play)
    first, second = stage.pids()
    assert first != second
    assert any("ended (signal SIGKILL), starting again" in line for line in stage.said)
    assert not any(alive(pid) for pid in stage.grandchildren())


ANSWERER = """
import os, socket
print("I am", os.getpid(), flush=True)
print("mine is", os.getpid(), flush=True)
listening = socket.socket(fileno=int(os.environ["LISTEN_FD"]))
while True:
    with listening.accept()[0] as caller:
        caller.sendall(str(os.getpid()).encode())
"""


def test_who_connects_while_a_listening_child_is_started_again_waits_for_it(stage: Stage) -> None:
    address = ("127.0.0.1", free_port())
    listening = replace(talker(stage.config), command=("python", "-c", ANSWERER), listen=address)

    def answer() -> int:
        with socket.create_connection(address, timeout=10) as caller:
            return int(caller.recv(20))

    def play() -> None:
        assert answer() == stage.pids()[0]
        kill(stage.pids()[0])
        assert answer() == stage.pids()[-1]  # asked at once, and not refused

    stage.run([listening], play)
    first, second = stage.pids()
    assert first != second
    with pytest.raises(ConnectionRefusedError):
        answer()  # nothing is held when the service has stopped


def test_children_that_listen_at_one_address_take_turns(stage: Stage) -> None:
    address = ("127.0.0.1", free_port())
    command = ("python", "-c", ANSWERER)
    both = [
        replace(talker(stage.config, name), command=command, listen=address)
        for name in ("one", "two")
    ]

    def play() -> None:
        kill(stage.pids("one")[0])
        with socket.create_connection(address, timeout=10) as caller:
            assert int(caller.recv(20)) in {*stage.pids("two"), *stage.pids("one")[1:]}

    stage.run(both, play)


def test_an_address_that_is_taken_is_told(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listening = replace(talker(stage.config), listen=other.getsockname())
        with pytest.raises(OpsError, match="Nothing can listen at"):
            stage.run([listening])


def test_a_child_that_cannot_be_started_is_tried_until_it_can(stage: Stage, tmp_path: Path) -> None:
    needed = tmp_path / "needed"
    needed.touch()

    def play() -> None:
        needed.unlink()
        os.kill(stage.pids()[0], signal.SIGKILL)
        until(lambda: any("cannot be started" in line for line in stage.said))
        needed.touch()
        until(lambda: len(stage.pids()) == 2)

    stage.run([replace(talker(stage.config), before=lambda: needed.open().close())], play)


def test_nothing_is_left_after_an_ordered_stop(stage: Stage) -> None:
    stage.run([talker(stage.config)])
    assert stage.pids()
    assert not any(alive(pid) for pid in stage.pids() + stage.grandchildren())


def test_a_child_that_ignores_the_signal_is_killed_when_its_time_is_over(stage: Stage) -> None:
    began = time.monotonic()
    stage.run([talker(stage.config, script=f"trap '' TERM; {TALKER}; wait")])
    assert not any(alive(pid) for pid in stage.pids() + stage.grandchildren())
    assert 1 < time.monotonic() - began < 8


def test_a_child_that_ends_at_its_start_is_an_error_with_its_last_words(stage: Stage) -> None:
    failing = talker(stage.config, "failing", script="echo no such luck; exit 3")
    with pytest.raises(OpsError) as failed:
        stage.run([talker(stage.config), failing])
    assert str(failed.value) == "failing ended at its start (exit code 3)."
    assert "no such luck" in failed.value.details
    until(lambda: not any(map(alive, stage.pids() + stage.grandchildren())), 1)


def test_a_child_that_is_never_ready_is_an_error(stage: Stage) -> None:
    with pytest.raises(OpsError, match="was not ready within 5 s"):
        stage.run([talker(stage.config, "silent", script="sleep 1000")])


def test_the_service_user_has_no_rights_and_sees_the_code_read_only(stage: Stage) -> None:
    script = (
        "id -un; touch here 2>&1; ls manage.py; "
        "grep -e ^CapEff -e ^NoNewPrivs /proc/self/status; echo mine is done; sleep 1000"
    )
    stage.run([talker(stage.config, script=script, as_service_user=True)])
    log = log_of(stage.config, "talker").read_text().split("\n")
    assert log[0] == "gantry"
    assert "Read-only file system" in log[1]
    assert log[2] == "manage.py"
    assert log[3:5] == ["CapEff:\t0000000000000000", "NoNewPrivs:\t1"]
    assert not (CHECKOUT / "here").exists()


def test_the_mount_that_shows_the_code_is_not_seen_by_the_host(stage: Stage) -> None:
    stage.run([talker(stage.config, as_service_user=True)])
    assert str(stage.config.home) not in Path("/proc/self/mountinfo").read_text()


SUPERVISOR = """
import asyncio, sys
from tests.ops.test_supervisor import talker
from ciserver.config import Config
from ciserver.ops.supervisor import supervise
from tests.ops.conftest import free_port

async def main():
    config = Config.from_env()
    up = lambda: print("up", flush=True)
    await supervise([talker(config)], config, print, stop=asyncio.Event(), started=up)

asyncio.run(main())
"""


def test_kill_9_of_the_supervisor_leaves_nothing_running(stage: Stage) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR],
        cwd=CHECKOUT,
        env={"GANTRY_HOME": str(stage.config.home), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    until(lambda: process.stdout.readline().strip() == "up")
    everything = stage.pids() + stage.grandchildren()
    assert all(alive(pid) for pid in everything)
    process.kill()
    process.wait()
    until(lambda: not any(alive(pid) for pid in everything), seconds=5)


def test_a_log_is_set_aside_while_its_writer_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ciserver.ops.supervisor._LOG_KEPT", 2000)
    monkeypatch.setattr("ciserver.ops.supervisor.ROTATE_SECONDS", 0.2)
    script = 'echo "mine is ready"; i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.002; done'
    log = log_of(stage.config, "talker")

    def play() -> None:
        deadline = time.monotonic() + 10
        while not log.with_name("talker.log.1").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)

    stage.run([talker(stage.config, script=script)], play)

    aside = log.with_name("talker.log.1").read_text().splitlines()
    assert aside[-1].startswith("line ")
    assert log.stat().st_size < 40_000
    numbers = [int(line.split()[1]) for line in log.read_text().splitlines()]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[0] > 1  # it went on where it was, not from the start
