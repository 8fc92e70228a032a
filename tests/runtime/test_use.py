"""A running sandbox in use: exec, pause, resume, list."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from runtime import host, oci, use
from runtime.entering import entrance
from runtime.errors import HostError, SandboxError, SpecError
from runtime.output import Stream
from runtime.reap import reap
from runtime.removal import remove_path
from runtime.spec import MIB, Limits, Outcome, Receipt, User
from tests.runtime.conftest import IDS, PREFIX, Sandboxes, processes_of, wait_until

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
ID = f"{PREFIX}used"


@contextmanager
def running(sandboxes: Sandboxes, script: str = "sleep 60", **fields: Any) -> Iterator[list[bytes]]:
    """A sandbox called ID; what it writes is in the list. Ended with the block."""
    up, over = threading.Event(), threading.Event()
    said: list[bytes] = []

    def take(stream: Stream, data: bytes) -> None:
        said.append(data)
        up.set()

    thread = threading.Thread(
        target=sandboxes.sh,
        args=(f"echo up; {script}",),
        kwargs={"id": ID, "on_output": take, "cancel": over, **fields},
    )
    thread.start()
    try:
        assert up.wait(10)
        yield said
    finally:
        over.set()
        thread.join()


def execute(sandboxes: Sandboxes, script: str, **options: Any) -> tuple[Receipt, str]:
    said: list[bytes] = []
    receipt = use.execute(
        sandboxes.state,
        ID,
        ["/bin/sh", "-c", script],
        on_output=lambda stream, data: said.append(data),
        **options,
    )
    return receipt, b"".join(said).decode()


def test_exec_has_the_same_namespaces_user_variables_and_seccomp(sandboxes: Sandboxes) -> None:
    look = (
        "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done; "
        "id; pwd; echo $COLOUR; "
        "grep -E 'Seccomp|NoNewPrivs|Cap' /proc/self/status; cat /proc/self/uid_map; "
        "ls /proc/self/fd | wc -l"
    )
    asked = {"env": {"COLOUR": "red"}, "cwd": "/tmp", "user": User(uid=5, gid=6)}
    with running(sandboxes, f"{look}; echo end; sleep 60", **asked) as said:
        assert wait_until(lambda: b"end" in b"".join(said))
        receipt, out = execute(sandboxes, look)
    assert receipt.ok
    assert out == b"".join(said).decode().removeprefix("up\n").removesuffix("end\n")


def test_exec_shares_the_limits_of_the_sandbox(sandboxes: Sandboxes) -> None:
    limits = Limits(memory=24 * MIB, pids=20, timeout=20)
    with running(sandboxes, limits=limits):
        receipt, out = execute(sandboxes, "for i in $(seq 40); do sleep 2 & done", timeout=10)
    assert "can't fork" in out and not receipt.ok


def test_exec_says_how_its_program_ended(sandboxes: Sandboxes) -> None:
    with running(sandboxes):
        assert execute(sandboxes, "exit 7")[0].exit_code == 7
        missing = use.execute(sandboxes.state, ID, ["/bin/nothing"])
        assert (missing.exit_code, missing.detail) == (127, "/bin/nothing: not found")
        assert execute(sandboxes, "pwd; id -u", cwd="/tmp", user=User(uid=9))[1] == "/tmp\n9\n"
        with pytest.raises(SpecError, match="belongs to the kernel"):
            execute(sandboxes, "true", cwd="/proc/self/fd/7")


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"user": User(uid=70000)}, "outside the sandbox's 65536 ids"),
        ({"cwd": "//proc/self/fd/7"}, "no normal absolute path"),
        ({"env": {"": "x"}}, "no name of an environment variable"),
        ({"env": {"A": "\udcff"}}, "not UTF-8"),
        ({"timeout": float("nan")}, "no number"),
        ({"timeout": 0}, "more than 0"),
        ({"args": []}, "no command"),
    ],
)
def test_exec_refuses_what_no_sandbox_could_be(
    wish: dict[str, Any], words: str, sandboxes: Sandboxes
) -> None:
    with running(sandboxes), pytest.raises(SpecError, match=words):
        use.execute(sandboxes.state, ID, **{"args": ["true"], **wish})


def test_exec_says_that_its_working_directory_is_missing(sandboxes: Sandboxes) -> None:
    with running(sandboxes):
        receipt, _ = execute(sandboxes, "pwd", cwd="/nowhere")
    assert receipt.exit_code == 126
    assert receipt.detail == "/bin/sh: its working directory cannot be entered"


@pytest.mark.parametrize("how", ["timeout", "cancel", "output"])
def test_exec_is_ended_whole_and_the_sandbox_goes_on(how: str, sandboxes: Sandboxes) -> None:
    script = (
        "setsid sleep 77 & (setsid sh -c 'sleep 77 & sleep 77' &); yes | head -c 9999; sleep 77"
    )
    cancel = threading.Event()
    options: dict[str, Any] = {
        "timeout": {"timeout": 0.5},
        "cancel": {"cancel": cancel},
        "output": {"output": 100},
    }[how]
    with running(sandboxes):
        threading.Timer(0.5, cancel.set).start()
        started = time.monotonic()
        receipt, _ = execute(sandboxes, script, **options)
        assert receipt.outcome is Outcome(how if how != "cancel" else "cancelled")
        assert receipt.exit_code == 137 and time.monotonic() - started < 8
        left = processes_of(IDS)
        assert not [line for line in left if "77" in line] and len(left) >= 1
        assert execute(sandboxes, "echo still here")[1] == "still here\n"


def test_exec_may_clear_up_when_its_time_is_over(sandboxes: Sandboxes) -> None:
    script = "trap 'echo tidied; exit' TERM; while :; do sleep 0.1; done"
    with running(sandboxes):
        receipt, said = execute(sandboxes, script, timeout=1.5)
        assert (said, receipt.outcome, receipt.wall < 3) == ("tidied\n", Outcome.TIMEOUT, True)
        assert execute(sandboxes, "echo still here")[1] == "still here\n"


def test_what_exec_left_in_the_background_ends_with_it(sandboxes: Sandboxes) -> None:
    with running(sandboxes):
        assert execute(sandboxes, "setsid sleep 77 >/dev/null 2>&1 & echo done")[1] == "done\n"
        assert not [line for line in processes_of(IDS) if "77" in line]


def test_a_sandbox_with_secrets_lets_nobody_look_inside(sandboxes: Sandboxes) -> None:
    with running(sandboxes, env={"TOKEN": "x"}, secrets=("TOKEN",)):
        with pytest.raises(SpecError, match="holds secrets"):
            execute(sandboxes, "true")
        assert execute(sandboxes, "echo $TOKEN", with_secrets=True)[1] == "x\n"
        box = use.find(sandboxes.state, ID)
        assert (box.path / "config.json").stat().st_mode & 0o777 == 0o600


def test_the_end_of_the_sandbox_ends_exec(sandboxes: Sandboxes) -> None:
    with running(sandboxes, "sleep 1"):
        receipt, _ = execute(sandboxes, "sleep 60")
    assert receipt.exit_code == 137 and receipt.wall < 8


def test_exec_asked_for_at_the_very_end_leaves_no_file(sandboxes: Sandboxes) -> None:
    """The box is removed while programs are being started in it."""
    for _ in range(4):
        with running(sandboxes, "sleep 0.15"):
            for _ in range(8):
                with suppress(SandboxError):
                    use.execute(sandboxes.state, ID, ["/bin/true"])
        assert list(sandboxes.state.boxes_dir.iterdir()) == []


@pytest.mark.parametrize("netns", [{}, {"path": "/proc/self/ns/net"}], ids=["own", "joined"])
def test_an_oci_runtime_that_comes_late_makes_nothing_of_a_sandbox_again(
    netns: dict[str, str], sandboxes: Sandboxes, tmp_path: Path
) -> None:
    """Both make the folder that their --root names, with all above it: a box without a record."""
    config = {"linux": {"namespaces": [{"type": "network", **netns}]}}
    with sandboxes.state.open_box(ID, parent="", command="") as box:
        (box.oci_root / ID).mkdir(parents=True)
        (box.oci_root / ID / "state.json").write_text('{"config": {"namespaces": []}}')
        with entrance(host.oci_runtime(), ID, box.oci_root, config, box.path / "state") as way:
            sandboxes.state.remove(box)
            late = oci.exec_command(
                host.oci_runtime(), id=ID, root=way.root, log=tmp_path / "log",
                process=tmp_path / "process.json", part="x",
            )  # fmt: skip
            assert subprocess.run(late.args, check=False, capture_output=True).returncode != 0
        assert list(sandboxes.state.boxes_dir.iterdir()) == []


def test_a_program_that_comes_late_finds_no_way_into_a_box_that_is_gone(
    sandboxes: Sandboxes,
) -> None:
    config = {"linux": {"namespaces": [{"type": "network", "path": "/proc/self/ns/net"}]}}
    runc = host.OciRuntime("runc", Path("runc"))
    with sandboxes.state.open_box(ID, parent="", command="") as box:
        (box.oci_root / ID).mkdir(parents=True)
        (box.oci_root / ID / "state.json").write_text('{"config": {"namespaces": []}}')
        moved = box.oci_root.rename(sandboxes.state.root / "moved")
        sandboxes.state.remove(box)
        with pytest.raises(FileNotFoundError):
            with entrance(runc, ID, moved, config, box.path / "state"):
                pass
        assert list(sandboxes.state.boxes_dir.iterdir()) == []
    remove_path(moved)


def test_a_paused_sandbox_stands_still_until_it_is_resumed(sandboxes: Sandboxes) -> None:
    with running(sandboxes, "while :; do echo tick; sleep 0.05; done") as said:
        use.pause(sandboxes.state, ID)
        use.pause(sandboxes.state, ID)
        time.sleep(0.2)
        count = len(said)
        [listed] = use.listed(sandboxes.state)
        assert (listed.id, listed.state) == (ID, "paused") and listed.processes >= 1
        with pytest.raises(SpecError, match="is paused"):
            execute(sandboxes, "true")
        time.sleep(0.3)
        assert len(said) == count
        use.resume(sandboxes.state, ID)
        assert wait_until(lambda: len(said) > count)
        use.pause(sandboxes.state, ID)  # and a paused one can be cancelled
    assert use.listed(sandboxes.state) == []


class Stubborn:
    """A cgroup that never changes."""

    def __init__(self, frozen: bool) -> None:
        self._frozen = frozen

    def frozen(self) -> bool:
        return self._frozen

    def freeze(self, frozen: bool) -> None:
        pass


@pytest.mark.parametrize(("verb", "words"), [(use.pause, "paused"), (use.resume, "resumed")])
def test_what_cannot_be_paused_or_resumed_is_said_with_the_next_step(
    verb: Any, words: str, sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(sandboxes):
        monkeypatch.setattr(use, "FREEZE_WAIT", 0)
        monkeypatch.setattr(
            use.cgroups, "open_cgroup", lambda name: Stubborn(frozen=verb is use.resume)
        )
        with pytest.raises(HostError, match=f"could not be {words} within 0 s. .*try again"):
            verb(sandboxes.state, ID)
        monkeypatch.undo()


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "paused"])
def test_another_process_ends_one_at_once_and_it_is_cancelled(
    frozen: bool, sandboxes: Sandboxes
) -> None:
    script = "trap '' TERM; (setsid sleep 77 &); echo up; sleep 77"
    with ThreadPoolExecutor(1) as pool:
        ran = pool.submit(sandboxes.sh, script, id=ID)
        assert wait_until(lambda: processes_of(IDS) == ["sleep 77 "] * 2)
        if frozen:
            use.pause(sandboxes.state, ID)
        began = time.monotonic()
        use.kill(sandboxes.state, ID)
        assert (processes_of(IDS), use.listed(sandboxes.state)) == ([], [])
        assert time.monotonic() - began < 2
        receipt = ran.result().receipt
    assert (receipt.outcome, receipt.exit_code) == (Outcome.CANCELLED, 137)


def test_a_sandbox_that_is_only_being_made_can_be_killed(sandboxes: Sandboxes) -> None:
    with ThreadPoolExecutor(1) as pool:
        for _ in range(5):
            ran = pool.submit(sandboxes.sh, "sleep 77", id=ID)
            assert wait_until(lambda: bool(sandboxes.state.boxes()))
            use.kill(sandboxes.state, ID)
            assert ran.result().receipt.outcome is Outcome.CANCELLED


def test_the_list_tells_what_each_takes(sandboxes: Sandboxes) -> None:
    with running(sandboxes, "dd if=/dev/zero of=/dev/shm/x bs=1M count=20; echo; sleep 77") as said:
        assert wait_until(lambda: len(said) > 1)
        [listed] = use.listed(sandboxes.state)
        assert 20 * MIB < listed.memory < 64 * MIB and 0 < listed.cpu < 10


def test_what_does_not_run_cannot_be_used(sandboxes: Sandboxes) -> None:
    for verb in (use.pause, use.resume, use.kill, use.find):
        with pytest.raises(SpecError, match="No sandbox called nobody is running"):
            verb(sandboxes.state, "nobody")


def test_the_command_line_runs_lists_pauses_and_reaps_after_a_kill(sandboxes: Sandboxes) -> None:
    state = ("--state", str(sandboxes.state.root))

    def runtime(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "runtime", words[0], *state, *words[1:]],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with running(sandboxes, "sleep 600"):
        done = runtime("exec", "--env", "A=b", ID, "--", "sh", "-c", "echo $A; exit 3")
        assert (done.communicate(), done.returncode) == (("b\n", ""), 3)
        assert runtime("pause", ID).wait() == 0
        listed = json.loads(runtime("list", "--json").communicate()[0])
        assert [(each["id"], each["state"]) for each in listed] == [(ID, "paused")]
        assert runtime("resume", ID).wait() == 0
        assert re.search(
            r"running\towner \d+\t\d+ processes\t\d+\.\d MiB\t\d+\.\d s of CPU\t/bin/sh",
            runtime("list").communicate()[0],
        )
        killed = runtime("exec", ID, "--", "sh", "-c", "setsid sleep 77 & echo up; sleep 77")
        assert killed.stdout is not None and killed.stdout.readline() == "up\n"
        killed.kill()
        killed.communicate()
        reap(sandboxes.state)  # or its watcher did
        assert wait_until(lambda: not [line for line in processes_of(IDS) if "77" in line])
        assert execute(sandboxes, "echo alive")[1] == "alive\n"
        assert runtime("kill", ID).wait() == 0
        assert runtime("kill", ID).communicate()[1].startswith(f"runtime: No sandbox called {ID}")
