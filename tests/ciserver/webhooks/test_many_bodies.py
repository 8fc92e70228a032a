"""Many large bodies at once: they wait on the disk, which must not be filled by strangers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from ciserver.lib import bodies
from ciserver.lib.bodies import LimitBodies

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(bodies, "AT_ONCE", 5 * MIB)
    yield


class Sender:
    """One request, whose body comes in pieces of one MiB as ``more`` is called."""

    def __init__(self, app: LimitBodies) -> None:
        self.pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        scope = {"type": "http", "path": "/hooks/github/hello/", "headers": []}
        self.task = asyncio.create_task(app(scope, self.pieces.get, self._told))

    async def _told(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.headers |= dict(message.get("headers", []))

    async def more(self, pieces: int, *, last: bool = False) -> None:
        for number in range(pieces):
            end = last and number == pieces - 1
            await self.pieces.put(
                {"type": "http.request", "body": bytes(MIB), "more_body": not end}
            )
        for _ in range(20):
            await asyncio.sleep(0)


async def read(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_beyond_half_a_gigabyte_large_ones_wait_and_small_ones_do_not() -> None:
    async def story() -> None:
        app = LimitBodies(read, {"/hooks/": 25 * MIB})
        slow, other, small = Sender(app), Sender(app), Sender(app)
        await slow.more(4)
        await other.more(2)
        assert other.status == 503
        assert other.headers[b"retry-after"] == b"10"
        await small.more(1, last=True)
        assert small.status == 202

        await slow.more(1, last=True)
        assert slow.status == 202
        again = Sender(app)
        await again.more(5, last=True)
        assert again.status == 202

    asyncio.run(story())


def test_a_sender_who_goes_away_holds_nothing() -> None:
    async def story() -> None:
        app = LimitBodies(read, {"/hooks/": 25 * MIB})
        gone = Sender(app)
        await gone.more(5)
        gone.task.cancel()
        await asyncio.gather(gone.task, return_exceptions=True)
        later = Sender(app)
        await later.more(5, last=True)
        assert later.status == 202

    asyncio.run(story())
