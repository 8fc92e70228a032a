"""A step that floods its log: the pages answer meanwhile, and what is kept is counted exactly."""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tests.e2e.follow import Follower, signed_in
from tests.e2e.service import BASE, Repository, Service

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(1800)]

MIB = 1024 * 1024
# By hand, with pytest's -s, TEST_FLOOD=10: ten million lines, one of 500 MB, 508 MB of any
# bytes; docs/operations.md has its figures.
TIMES = int(os.environ.get("TEST_FLOOD", "1"))
LINES, LINE, BINARY = TIMES * 1_000_000, TIMES * 50 * MIB, TIMES * 50_800_000
TOTAL = 2 * LINES + LINE + 1 + BINARY  # bytes
FLOOD = f"""
import os
def write(data):
    while data:
        data = data[os.write(1, data):]
for _ in range({LINES // 10_000}):
    write(b"y\\n" * 10_000)
for _ in range({LINE // MIB}):
    write(b"x" * {MIB})
write(b"\\n")
for _ in range({BINARY // 254_000}):
    write(bytes(set(range(256)) - {{10, 13}}) * 1_000)
"""
DOCKERFILE = f"FROM {BASE}\nCOPY flood.py /\nRUN python3 /flood.py\n"
MOST_MEMORY = 200 * MIB  # of a process of the worker
PAGES = ("/", "/projects/floods/pipelines/1/", "/projects/floods/")
MARK = re.compile(r"\[(\d+) bytes were written here and are not kept\]")


class Visitor(threading.Thread):
    """Opens pages until it is told to stop; how long the slowest took, in seconds."""

    def __init__(self, browser: httpx.Client, paths: tuple[str, ...]) -> None:
        super().__init__(daemon=True)
        self._browser, self._paths = browser, paths
        self.enough = threading.Event()
        self.slowest = (0.0, "")
        self.opened = 0
        self.refused: list[str] = []  # an assertion in a thread would fail nobody

    def run(self) -> None:
        while not self.enough.wait(0.1):
            for path in self._paths:
                began = time.monotonic()
                if (status := self._browser.get(path).status_code) != 200:
                    self.refused.append(f"{path}: {status}")
                self.slowest = max(self.slowest, (time.monotonic() - began, path))
                self.opened += 1


def test_pages_answer_and_every_byte_is_kept_or_counted(service: Service, tmp_path: Path) -> None:
    service.make_project("floods")
    with closing(signed_in(service)) as browser, closing(signed_in(service)) as reader:
        commit = Repository(tmp_path / "floods", service, "floods").push(
            {"Dockerfile": DOCKERFILE, "flood.py": FLOOD}
        )
        follower = Follower(reader, "/projects/floods/pipelines/1/events")
        following = follower.start()
        visitor = Visitor(browser, PAGES)
        visitor.start()
        pipeline = service.pipeline_of("floods", commit, seconds=300 + 100 * TIMES)
        assert visitor.is_alive(), "a page did not answer at all"
        visitor.enough.set()
        visitor.join()
        following.join(60)
    memory = max(map(_most_memory, service.worker_pids()))
    (build,) = [job for job in pipeline["jobs"] if job["name"] == "build"]
    began, ended = (datetime.fromisoformat(build[key]) for key in ("started_at", "finished_at"))
    print(
        f"{TOTAL} bytes in {ended - began}; the slowest of {visitor.opened} pages took"
        f" {visitor.slowest[0]:.3f} s; a worker had {memory / MIB:.0f} MiB at the most"
    )
    assert follower.ended == "end"
    assert pipeline["state"] == "passed", pipeline["reason"]
    assert visitor.refused == []
    assert visitor.opened >= 2 * len(PAGES)
    assert memory < MOST_MEMORY
    lines = (
        service.log_of(build).partition("RUN python3 /flood.py\n")[2].removesuffix("\n").split("\n")
    )
    full, mark = (line for line in lines if line.startswith("["))
    assert full == "[64 MiB of output are kept: of what follows, only the end of each step]"
    (missing,) = map(int, MARK.findall(mark))
    # Each byte is a letter, also one that is no UTF-8; what is long has pieces, and no newline.
    out = [line for line in lines if line not in {full, mark}]
    short = out.count("y")
    assert out[:short] == ["y"] * short
    assert short == LINES or TIMES > 1  # then there is no room for more
    newlines = short + (1 if short == LINES else 0)
    assert sum(map(len, out)) + newlines + missing == TOTAL
    print(f"{short} lines of {LINES} are kept, and {missing} bytes counted")
    assert visitor.slowest[0] < 1, visitor.slowest


def _most_memory(pid: int) -> int:
    """In bytes; proc(5), VmHWM."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
