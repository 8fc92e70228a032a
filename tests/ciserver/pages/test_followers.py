"""Two hundred followers of one log on one web process, and one subscription for them all."""

from __future__ import annotations

import asyncio
import re
import subprocess
import threading
import time
from pathlib import Path

import httpx

from tests.ciserver.pages.serving import Stage

FOLLOWERS = 200
LINES = 100


async def follow(client: httpx.AsyncClient, url: str, started: list[int]) -> list[int]:
    seen: list[int] = []
    async with client.stream("GET", url) as answer:
        started.append(answer.status_code)
        async for line in answer.aiter_lines():
            seen += [int(text) for text in re.findall(r"line (\d+)\.", line)]
            if line == "event: end":
                break
    return seen


async def follow_all(stage: Stage, url: str, started: list[int]) -> list[list[int]]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60, cookies=stage.cookies()) as client:
        return await asyncio.gather(*(follow(client, url, started) for _ in range(FOLLOWERS)))


def memory(stage: Stage) -> int:
    """MiB that the web process has resident."""
    status = Path(f"/proc/{stage.web.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]


def subscriptions(stage: Stage) -> int:
    words = ["redis-cli", "-s", str(stage.home / "run" / "redis.sock"), "pubsub", "numpat"]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])


def test_two_hundred_followers_get_every_line_once_by_one_subscription(stage: Stage) -> None:
    pipeline = stage("start")
    url = f"{stage.url}/projects/hello/pipelines/{pipeline['number']}/events"
    started: list[int] = []
    found: list[list[int]] = []
    coroutine = follow_all(stage, url, started)
    thread = threading.Thread(target=lambda: found.extend(asyncio.run(coroutine)))
    thread.start()
    try:
        deadline = time.monotonic() + 40
        while len(started) < FOLLOWERS and time.monotonic() < deadline:
            time.sleep(0.1)
        assert started == [200] * FOLLOWERS
        assert subscriptions(stage) == 1
        before = memory(stage)
        stage("number_lines", pipeline=pipeline["id"], first=1, last=LINES, every=20, pause=0.1)
    finally:  # else they would follow until the session's end, whatever failed
        stage("finish", pipeline=pipeline["id"])
        thread.join(40)
    assert memory(stage) - before < 64  # MiB: a reader holds a place, not the log
    assert found == [list(range(1, LINES + 1))] * FOLLOWERS
