"""Commands of a target: whatever they say, and however much of it."""

from __future__ import annotations

import os
import resource
import time
from itertools import pairwise
from pathlib import Path

import pytest

from ciserver.releases.targets import commands
from ciserver.releases.targets.base import KEPT, EngineTarget
from ciserver.releases.targets.engine import Engine
from ciserver.releases.targets.errors import CommandFailed, CommandTimedOut, CommandTooLoud
from ciserver.releases.targets.machine import Here
from ciserver.releases.targets.spec import Check, Container

CONTAINER = Container(
    id="c1",
    name="one",
    image_id="sha256:aa",
    labels={},
    running=True,
    oom_killed=False,
    restarts=0,
    address="",
)


def shell(script: str, **options: object) -> commands.Result:
    return commands.attempt(["sh", "-c", script], timeout=20, **options)  # type: ignore[arg-type] - by name


@pytest.mark.parametrize("to", ["", " >&2"])
def test_one_that_never_stops_talking_is_ended_with_all_that_it_started(
    tmp_path: Path, to: str
) -> None:
    pid = tmp_path / "pid"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CommandTooLoud, match=r"'sh -c' wrote more than 16 MiB and was ended\. See"):
        shell(f"sleep 60 & echo $! > {pid}; yes{to}")
    assert _ends(int(pid.read_text()))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most
    assert grown < 128 * 1024, "KiB"


def test_one_that_does_not_end_in_time_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(CommandTimedOut, match=r"did not end within 0\.3 s"):
        commands.attempt(["sh", "-c", f"sleep 60 & echo $! > {pid}; wait"], timeout=0.3)
    assert _ends(int(pid.read_text()))


def _ends(pid: int) -> bool:
    """Whether that process is gone, or nothing but its parent's word about it is left."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_it_is_read_from_while_it_is_written_to() -> None:
    sent = os.urandom(500_000).hex().encode()
    assert shell("cat", stdin=sent).out.encode() == sent
    assert shell("cat >&2; exit 3", stdin=sent) == commands.Result(3, "", sent.decode())
    assert shell("echo done", stdin=sent).out == "done\n", "it need not read what it is sent"
    assert shell("cat").out == ""


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (CommandFailed(["podman", "pull"], 125, "unauthorized."), "See to that there, then try"),
        (CommandFailed(["podman", "pull"], 1, "No space left on device"), "Make room on the host"),
        (CommandTimedOut(["podman", "ps"], 30), "See how busy the host is"),
        (CommandTooLoud(["podman", "ps"], 1 << 24), "See on the host what it has to say"),
    ],
)
def test_what_went_wrong_comes_with_the_next_step(error: Exception, step: str) -> None:
    assert step in str(error)
    assert ".." not in str(error)


def test_of_one_that_may_talk_only_the_last_whole_lines_are_kept() -> None:
    said = shell("yes | head -c 20000000; echo end; echo oops >&2; exit 4", keep=1000)
    assert (said.code, said.out[-6:], said.err) == (4, "y\nend\n", "oops\n")
    assert 990 < len(said.out) <= 1000


def test_a_healthcheck_and_a_log_may_be_long(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\nyes | head -c 20000000; echo the end\nexit 3\n")
    engine.chmod(0o755)
    target = EngineTarget(Here(), Engine(program=str(engine)))
    said = target.probe(CONTAINER, Check(command=("check",)))
    assert said.startswith("the HEALTHCHECK ended with exit code 3: y\n")
    assert said.endswith("\nthe end")
    assert len(said) < KEPT + 100
    assert target.last_lines(CONTAINER, 5).endswith("\nthe end")


class Enough(Exception):
    pass


def test_a_pulse_ends_one_that_goes_on_with_all_that_it_started(tmp_path: Path) -> None:
    pid, began = tmp_path / "pid", time.monotonic()

    def pulse() -> None:
        if pid.exists():
            raise Enough

    with pytest.raises(Enough):
        shell(f"sleep 60 & echo $! > {pid}; while :; do echo busy; sleep 0.01; done", pulse=pulse)
    assert time.monotonic() - began < commands.BEAT + 5
    assert _ends(int(pid.read_text()))


def test_a_pulse_is_asked_now_and_then_and_changes_nothing_else() -> None:
    asked = [time.monotonic()]
    result = shell("sleep 2.5; echo done", pulse=lambda: asked.append(time.monotonic()))
    assert result.out == "done\n"
    assert len(asked) > 1
    assert all(later - earlier >= commands.BEAT for earlier, later in pairwise(asked))
