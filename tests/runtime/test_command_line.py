"""``python -m runtime``, as a person uses it."""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime.cli import main
from runtime.cli.options import default_state, parse_size
from runtime.sandbox import Stream
from runtime.snapshots import LowerDir
from runtime.state import StateDirectory

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def program(*args: str, area: Path) -> Done:
    """The command as a process of its own."""
    command, *rest = args
    done = subprocess.run(
        [sys.executable, "-m", "runtime", command, "--state", str(area / "state"), *rest],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def runtime(*args: str | bytes, area: Path) -> Done:
    """The command in this process: starting one of its own takes longer than most of what is
    asked of it."""
    command, *rest = map(os.fsdecode, args)
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in Stream)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([command, "--state", str(area / "state"), *rest])
    except SystemExit as error:  # what argparse thinks of the words
        code = int(error.code or 0)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Done(code, *(each.buffer.getvalue().decode() for each in (out, err)))


@pytest.mark.root
def test_the_exit_code_and_both_streams_are_the_commands(area: Path) -> None:
    script = "echo out; echo err >&2; exit 3"
    for way in (program, runtime):
        done = way("run", "--", "sh", "-c", script, area=area)
        assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


@pytest.mark.root
def test_a_wrong_wish_is_told_by_the_program_too(area: Path) -> None:
    for words in (("run", "--", os.fsdecode(b"\xff")), ("run", "--pids", "many", "--", "true")):
        done = program(*words, area=area)
        assert done == runtime(*words, area=area)
        assert (done.returncode, done.stdout) == (125, "") and done.stderr


@pytest.mark.root
def test_without_a_root_it_sees_the_hosts_programs_and_no_secret(area: Path) -> None:
    script = "ls /root /home /var/lib /etc/shadow /etc/ssh /opt /srv 2>/dev/null; id -u; hostname"
    done = runtime("run", "--", "sh", "-c", script, area=area)
    assert "0\nsandbox\n" in done.stdout
    assert done.stdout.replace("/root:", "").replace("/home:", "").split() == ["0", "sandbox"]


@pytest.mark.root
def test_a_kill_is_137_with_a_word_and_a_receipt(area: Path, busybox: LowerDir) -> None:
    file = area / "receipt.json"
    asked = ("--rootfs", str(busybox.path), "--receipt", str(file))
    for limit, command, word, outcome in (
        (("--timeout", "0.4"), "sleep 9", "killed: time limit of 0.4 s reached", "timeout"),
        (
            ("--memory", "16m"),
            "sleep 0.3; exec dd if=/dev/zero of=/dev/shm/x bs=1M count=40",
            "killed: memory limit of 16 MiB reached, dd (pid 1) was killed",
            "oom",
        ),
    ):
        done = runtime("run", *asked, *limit, "--", "sh", "-c", command, area=area)
        assert (done.returncode, done.stderr.splitlines()[-1:]) == (137, [word])
        assert json.loads(file.read_text())["outcome"] == outcome


@pytest.mark.root
def test_a_bomb_of_bash_which_waits_between_tries_is_ended(area: Path) -> None:
    bomb = ":(){ :|:& };: 2>/dev/null; while :; do sleep 1; done"
    started = time.monotonic()
    done = runtime("run", "--pids", "40", "--timeout", "25", "--", "bash", "-c", bomb, area=area)
    assert done.returncode == 137 and "limit of 40 processes reached" in done.stderr
    assert time.monotonic() - started < 20


@pytest.mark.root
def test_sandboxes_with_one_parent_share_its_budget(area: Path) -> None:
    shared = ("--cgroup-parent", "cli", "--budget", "memory=512m,pids=20")
    bomb = "for i in $(seq 40); do sleep 5 & done; wait"
    done = runtime("run", *shared, "--pids", "60", "--", "bash", "-c", bomb, area=area)
    assert done.returncode == 137
    assert "limit of 20 processes for the whole pipeline reached" in done.stderr


@pytest.mark.root
def test_an_interrupt_ends_the_sandbox(area: Path, busybox: LowerDir) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "runtime", "run", "--state", str(area / "state")),
            *("--rootfs", str(busybox.path), "--", "sh", "-c", "echo up; sleep 60"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    listed = runtime("list", area=area).stdout
    assert "running" in listed and "sleep 60" in listed
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (137, b"killed: cancelled\n")
    assert runtime("list", area=area).stdout == ""


@pytest.mark.root
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--rootfs", "/no/such/dir", "--", "true"), "is no directory"),
        (("--ids", "5", "--", "true"), "starts at 65536"),
        (("--workdir", "/nowhere", "--", "true"), "is not there"),
        (("--memory", "1k", "--", "true"), "too small"),
        (("--memory", "999999999999g", "--", "true"), "more than the kernel can count"),
        (("--cpus", "nan", "--", "true"), "is no number"),
        (("--timeout", "nan", "--", "true"), "is no number"),
        (("--shm", "0", "--", "true"), "at least 1 byte"),
        (("--hostname", "", "--", "true"), "no host name"),
        (("--name", "", "--", "true"), "no sandbox id"),
        (("--ids", "99999999999", "--", "true"), "ends below"),
        (("--workdir", "//proc/self/fd/7", "--", "true"), "no normal absolute path"),
        (("--receipt", "/nowhere/at/all", "--", "true"), "cannot be written"),
        (("--receipt", "/tmp", "--", "true"), "cannot be written"),
        (("--rootfs", "/", "--", "true"), "where sandboxes are made"),
        (("--rootfs", "/usr", "--rootfs-base", "5000000000", "--", "true"), "cannot be 5000000000"),
        (("--network", "egress", "--allow", "x:y", "--", "true"), "is no port"),
        (("--network-alias", "db", "--", "true"), "Give --network private:NAME"),
        (("--network", "private:ci", "--name", "DB", "--", "true"), "no name for a member"),
        (("--budget", "pids=20", "--", "true"), "Give --cgroup-parent"),
        (("--cgroup-parent", "../x", "--", "true"), "is no name of a cgroup"),
        (("--", "echo", b"\xff"), "not UTF-8"),
        (("--", ""), "no command"),
    ],
)
def test_a_wrong_wish_is_125_and_one_sentence(
    args: tuple[str | bytes, ...], words: str, area: Path
) -> None:
    done = runtime("run", *args, area=area)
    assert done.returncode == 125 and words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.count(". ") >= 1 and done.stderr.endswith(".\n"), "it names the next step"


@pytest.mark.root
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("run",), "the following arguments are required"),
        (("run", "--pids", "many", "--", "true"), "invalid int value"),
        (("run", "--keep", "nan", "--", "true"), "is no number of seconds"),
        (("run", "--keep", "-1", "--", "true"), "is no number of seconds"),
        (("run", "--budget", "memory=1g,disk=2g", "--", "true"), "is no budget"),
        (("run", "--budget", "pids=1,pids=2", "--", "true"), "is no budget"),
        (("run", "--budget", "cpus", "--", "true"), "is no budget"),
        (("run", "--network", "private", "--", "true"), "is no network: none, egress"),
        (("run", "--user", "root", "--", "true"), "is not UID or UID:GID"),
        (("exec", "x"), "the following arguments are required"),
    ],
)
def test_what_cannot_be_read_is_125_too(args: tuple[str, ...], words: str, area: Path) -> None:
    done = runtime(*args, area=area)
    assert (done.returncode, done.stdout) == (125, "")
    assert words in done.stderr and "--help" in done.stderr


@pytest.mark.root
def test_a_name_that_is_kept_already_is_said_before_the_program_runs(
    area: Path, busybox: LowerDir
) -> None:
    keep = ("run", "--rootfs", str(busybox.path), "--keep", "60", "--name", "twice", "--")
    assert "kept for" in runtime(*keep, "false", area=area).stderr
    again = runtime(*keep, "echo", "ran", area=area)
    assert (again.returncode, again.stdout) == (125, "") and "drop twice" in again.stderr
    assert runtime("drop", "twice", area=area).returncode == 0


@pytest.mark.root
@pytest.mark.parametrize("command", [("list",), ("reap",), ("exec", "x", "true"), ("pause", "x")])
def test_without_root_it_is_a_sentence(command: tuple[str, ...], area: Path) -> None:
    StateDirectory(area / "state")
    words = [f"{sys.executable}", "-m", "runtime", command[0], "--state", f"{area}/state"]
    nobody = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", *words, *command[1:]],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert nobody.returncode == 125
    assert nobody.stderr.endswith("Permission denied. Run it with sudo.\n"), nobody.stderr


@pytest.mark.root
def test_a_state_that_cannot_be_made_is_a_sentence(area: Path) -> None:
    done = runtime("run", "--state", "/proc/nothing", "--", "true", area=area)
    assert done.returncode == 125 and "Name another with --state." in done.stderr


@pytest.mark.root
def test_a_variable_without_a_value_is_the_callers_own_or_none(
    area: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_CALLER", "here")
    asked = ("--env", "OF_THE_CALLER", "--env", "OF_NOBODY", "--env", "GIVEN=x")
    out = runtime("run", *asked, "--", "env", area=area).stdout.splitlines()
    assert {"OF_THE_CALLER=here", "GIVEN=x"} <= set(out)
    assert not any(line.startswith("OF_NOBODY") for line in out)


def test_every_error_of_the_package_names_the_next_step() -> None:
    """The signature asks for a hint; that it is more than nothing is asked here."""
    calls = [
        (path.name, node)
        for path in (ROOT / "runtime").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"SandboxError", "SpecError", "HostError", "RuntimeFailed"}
    ]
    assert len(calls) > 60
    for name, call in calls:
        hints = [keyword.value for keyword in call.keywords if keyword.arg == "hint"]
        assert hints, f"{name}:{call.lineno}"
        assert not (isinstance(hints[0], ast.Constant) and len(hints[0].value) < 9), name


@pytest.mark.root
def test_events_are_numbered_lines_of_json_and_the_receipt(area: Path) -> None:
    script = "printf '\\000\\377'; sleep 0.1; echo err >&2; sleep 0.1; echo out; exit 4"
    done = runtime("run", "--events", "--", "sh", "-c", script, area=area)
    *pieces, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, last["receipt"]["exit_code"], done.stderr) == (4, 4, "")
    assert [piece["seq"] for piece in pieces] == [1, 2, 3]
    told = [(piece["stream"], base64.b64decode(piece["data"])) for piece in pieces]
    assert told == [("stdout", b"\0\xff"), ("stderr", b"err\n"), ("stdout", b"out\n")]


@pytest.mark.root
def test_a_list_shows_no_escape_sequence_of_a_commands(area: Path, busybox: LowerDir) -> None:
    evil = "false '\033]0;owned\007' '\n' x\tkept"
    keep = ("run", "--rootfs", str(busybox.path), "--keep", "60", "--name", "evil", "--")
    runtime(*keep, "sh", "-c", evil, area=area)
    (line,) = runtime("list", area=area).stdout.splitlines()
    assert line.endswith("false '?]0;owned?' '?' x?kept") and "\033" not in line
    assert runtime("drop", "evil", area=area).returncode == 0


@pytest.mark.root
def test_the_check_says_that_this_machine_is_ready(area: Path) -> None:
    done = runtime("check", area=area)
    assert done.returncode == 0 and "Ready: sandboxes run by /usr" in done.stdout


@pytest.mark.root
def test_a_reader_that_goes_away_ends_it_quietly(area: Path, busybox: LowerDir) -> None:
    command = f"{sys.executable} -m runtime run --state {area}/state --rootfs {busybox.path} -- yes"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1; echo ${{PIPESTATUS[0]}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("y\n141\n", "")


@pytest.mark.root
def test_programs_are_told_in_json(area: Path) -> None:
    assert json.loads(runtime("reap", "--json", area=area).stdout) == []
    assert json.loads(runtime("list", "--json", area=area).stdout) == []
    found = json.loads(runtime("check", "--json", area=area).stdout)
    assert found["missing"] == [] if found["ready"] else found["missing"]
    assert found["cgroups"] in ("v1", "v2")


def test_reaping_nothing_says_nothing(area: Path) -> None:
    assert runtime("reap", area=area).stdout == ""


@pytest.mark.parametrize("verb", ["list", "reap"])
def test_looking_makes_no_state_directory(verb: str, area: Path) -> None:
    done = runtime(verb, area=area)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (area / "state").exists()


@pytest.mark.parametrize("verb", ["list", "reap"])
def test_a_state_that_is_no_directory_is_one_sentence(verb: str, area: Path) -> None:
    (area / "state").write_text("")
    done = runtime(verb, area=area)
    assert done.returncode == 125 and done.stderr.count("\n") == 1
    assert "is no directory. Name one with --state." in done.stderr


def test_sizes_are_read_as_docker_reads_them() -> None:
    assert [parse_size(t) for t in ("64m", "1g", "512", "10k", "2MiB")] == [
        *(64 * 1024**2, 1024**3, 512, 10240, 2 * 1024**2)
    ]


def test_the_state_is_below_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTRY_HOME", "/srv/gantry")
    assert default_state() == Path("/srv/gantry/sandboxes")
