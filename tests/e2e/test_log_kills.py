"""A log is followed without a gap and without a repeat while web and Redis are killed."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.follow import Follower, signed_in
from tests.e2e.service import BASE, Repository, Service, descendants, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(200)]

LINES = 45_000
DOCKERFILE = f"FROM {BASE}\nCOPY count.py /\nRUN python3 /count.py\nCMD true\n"
COUNT = f"""
import time
for n in range(1, {LINES + 1}):
    print("number", n)
    if n % 3000 == 0:
        print(end="", flush=True)
        time.sleep(0.25)
"""


def kill(service: Service, word: bytes) -> None:
    for pid in descendants(service.process.pid):
        if word in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
            return
    raise AssertionError(f"no process {word!r}")


def test_no_line_is_lost_or_comes_twice_when_web_and_redis_are_killed(
    service: Service, tmp_path: Path
) -> None:
    service.make_project("kills")
    with closing(signed_in(service)) as browser:
        clone = Repository(tmp_path / "kills", service, "kills")
        clone.push({"Dockerfile": DOCKERFILE, "count.py": COUNT})
        follower = Follower(browser, "/projects/kills/pipelines/1/events")
        thread = follower.start()
        for word in (b"ciserver.serve", b"redis-server", b"ciserver.serve"):
            seen = len(follower.numbers)
            wait_for(lambda seen=seen: len(follower.numbers) > seen + 3000 or None, 60)
            kill(service, word)
        thread.join(90)
        assert follower.ended == "end"
    assert follower.connections >= 3
    assert follower.numbers == list(range(1, len(follower.numbers) + 1))
    wait_for(lambda: service.http.get("/me/").status_code == 200 or None, 30)
    (row,) = service.get("pipelines/", project="kills")["results"]
    pipeline = service.get(f"pipelines/{row['id']}/")
    assert pipeline["state"] == "passed", pipeline["reason"]
    build = pipeline["jobs"][0]
    told = service.log_of(build).splitlines()
    assert len(told) == len(follower.numbers)
    assert [line for line in told if line.startswith("number ")] == [
        f"number {n}" for n in range(1, LINES + 1)
    ]
