"""``git push -o wait``: the log comes into the terminal, and the verdict ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import Job, Pipeline, State
from ciserver.repositories.git import git_dir, heads
from ciserver.webhooks.following import plain
from tests.ciserver.repositories.serving import Server, commit, git


@pytest.fixture
def remote(server: Server, project: Any, bob: Any, token_of: Callable[..., str]) -> str:
    return server.git_url(token=token_of(bob))


@pytest.fixture
def run() -> Iterator[Callable[[str, str], threading.Thread]]:
    """Does what a worker would, as soon as a pipeline is queued."""
    threads = []

    def begin(state: str, reason: str = "") -> threading.Thread:
        def work() -> None:
            while not Pipeline.objects.exists():
                time.sleep(0.05)
            pipeline = Pipeline.objects.get()
            job = Job.objects.create(pipeline=pipeline, position=1, name="build", kind="build")
            job.log_path.unlink(missing_ok=True)  # of a test before, whose rows had the same ids
            with LogWriter(job.log_path) as log:
                log.say("  STEP 1/2\x1b[31m red \x1b]0;title\x07")
                time.sleep(0.7)
                for number in range(3000):
                    log.say(f"line {number} {'x' * 40}")
            Pipeline.objects.update(state=state, reason=reason, place="Dockerfile:3")

        thread = threading.Thread(target=work)
        thread.start()
        threads.append(thread)
        return thread

    yield begin
    for thread in threads:
        thread.join()


def test_the_whole_log_and_the_verdict_are_shown(
    remote: str, server: Server, run: Any, tmp_path: Path
) -> None:
    commit(tmp_path, {"a": "1"})
    run(State.PASSED)
    said = git("push", "-o", "wait", remote, "main", cwd=tmp_path)
    lines = [line.removeprefix("remote: ").rstrip() for line in said.splitlines()]
    assert f"pipeline #1 {server.url}/projects/hello/pipelines/1/" in lines
    assert "build |   STEP 1/2 red" in lines
    shown = [line for line in lines if line.startswith("build | line ")]
    assert [line.split()[3] for line in shown] == [str(number) for number in range(3000)]
    assert any(line.startswith("pipeline #1 PASSED in ") for line in lines)


def test_a_failure_is_told_in_words_because_the_push_has_landed(
    remote: str, project: Any, run: Any, tmp_path: Path
) -> None:
    sha = commit(tmp_path, {"a": "1"})
    run(State.FAILED, "The command ended with exit code 3.")
    said = git("push", "-o", "wait", remote, "main", cwd=tmp_path)
    assert "pipeline #1 FAILED (the push itself was taken): Dockerfile:3: The command" in said
    assert heads(git_dir(project)) == {"refs/heads/main": sha}


def test_without_the_option_nobody_waits_and_an_unknown_one_is_named(
    remote: str, tmp_path: Path
) -> None:
    commit(tmp_path, {"a": "1"})
    said = git("push", "-o", "$(id)", remote, "main", cwd=tmp_path)
    assert "Gantry knows no push option $(id); there is: wait" in said
    assert "pipeline #1 " in said


def test_a_pusher_who_goes_away_leaves_no_process_behind(
    remote: str, server: Server, tmp_path: Path
) -> None:
    commit(tmp_path, {"a": "1"})
    push = subprocess.Popen(
        ["git", "push", "--quiet", "-o", "wait", remote, "main"],
        cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    for _ in range(200):
        if Pipeline.objects.exists() and _backends(server):
            break
        time.sleep(0.05)
    os.killpg(push.pid, signal.SIGKILL)  # its helper, which holds the connection, too
    push.wait()
    for _ in range(100):
        if not _backends(server):
            break
        time.sleep(0.1)
    assert _backends(server) == []


def test_nothing_of_a_log_steers_the_terminal() -> None:
    assert plain("a\x1b[2Jb\x1b]52;c;evil\x07\rc\u202e\td\x9b") == "abc\td"


def _backends(server: Server) -> list[str]:
    """Git's processes below the server."""
    shown = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(server.process.pid)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [line for line in shown.stdout.splitlines() if "http-backend" in line]


def test_escape_codes_without_an_end_take_no_time() -> None:
    before = time.process_time()
    assert plain("a \x1b]0;title\x07b " + "\x1b]" * 32_000) == "a b "
    assert time.process_time() - before < 0.5
