"""A log is followed without a gap and without a repeat while web, Redis and worker are killed."""

from __future__ import annotations

import os
import signal
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.follow import Follower, signed_in
from tests.e2e.service import BASE, Repository, Service, descendants, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(400)]

LINES = 200_000
RUN = "RUN --mount=type=cache,target=/count python3 /count.py"
DOCKERFILE = f"FROM {BASE}\nCOPY count.py /\n{RUN}\nCMD true\n"
# Each run tells in a file, which outlives it, of each line that it has written.
COUNT = f"""
import os, time
told = os.open(f"/count/{{time.time_ns()}}.told", os.O_RDWR | os.O_CREAT)
for n in range(1, {LINES + 1}):
    os.write(1, b"number %d\\n" % n)
    os.pwrite(told, b"%d" % n, 0)
    if n % 5000 == 0:
        time.sleep(0.4)
"""


def kill(service: Service, word: bytes) -> None:
    for pid in descendants(service.process.pid):
        if word in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
            return
    raise AssertionError(f"no process {word!r}")


def kill_workers(service: Service) -> None:
    for pid in service.worker_pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for_lines(follower: Follower, count: int) -> None:
    wait_for(lambda: len(follower.numbers) >= count or None, 90)


def in_log(service: Service, job: Any) -> list[int]:
    """The numbers that a job's step printed, as the API tells them."""
    lines = service.log_of(job).splitlines()
    return [int(line.removeprefix("number ")) for line in lines if line.startswith("number ")]


def test_no_line_is_lost_or_comes_twice_when_web_redis_and_worker_are_killed(
    service: Service, tmp_path: Path
) -> None:
    service.make_project("kills")
    with closing(signed_in(service)) as browser:
        clone = Repository(tmp_path / "kills", service, "kills")
        clone.push({"Dockerfile": DOCKERFILE, "count.py": COUNT})
        follower = Follower(browser, "/projects/kills/pipelines/1/events")
        thread = follower.start()
        wait_for_lines(follower, 20_000)
        kill_workers(service)
        thread.join(90)
        # Another worker takes it up, its job beside the one that died: the page begins anew.
        assert follower.ended == "restart"
        again = Follower(browser, follower.path, job=2)
        thread = again.start()
        for number, word in enumerate((b"ciserver.serve", b"redis-server", b"ciserver.serve"), 1):
            wait_for_lines(again, number * 20_000)
            kill(service, word)
        thread.join(120)
        assert again.ended == "end"
    for each in (follower, again):
        assert each.numbers == list(range(1, len(each.numbers) + 1))
    assert again.connections >= 3
    wait_for(lambda: service.http.get("/me/").status_code == 200 or None, 30)
    (row,) = service.get("pipelines/", project="kills")["results"]
    pipeline = service.get(f"pipelines/{row['id']}/")
    assert pipeline["state"] == "passed", pipeline["reason"]
    died, second = [job for job in pipeline["jobs"] if job["name"] == "build"]
    assert (died["state"], second["state"]) == ("cancelled", "passed")
    before = in_log(service, died)
    assert before == list(range(1, len(before) + 1))
    assert len(follower.numbers) == len(service.log_of(died).splitlines())
    assert 20_000 <= len(before) < LINES
    runs = sorted(service.home.glob("store/caches/*/*/tree/*.told"), key=lambda file: file.name)
    written = [int(file.read_text()) for file in runs]
    assert written[1:] == [LINES]
    assert len(before) - written[0] in {0, 1}, "every line that it had written, and no other"
    assert in_log(service, second) == list(range(1, LINES + 1))
    assert len(again.numbers) == len(service.log_of(second).splitlines())
