"""Who waits for news can stop at any moment."""

from __future__ import annotations

import asyncio

from ciserver.pipelines import events


def test_who_stops_stops_also_when_news_come_in_that_very_moment() -> None:
    """asyncio.wait_for of Python 3.11 loses such a cancel (python/cpython#86296)."""

    async def listen() -> None:
        async for _ in events.changes(7):
            pass

    async def main() -> bool:
        listener = asyncio.create_task(listen())
        await asyncio.sleep(0.05)
        events._hub()._tell(events._channel(7))
        await asyncio.sleep(0)  # the listener's inner wait ends, itself has not gone on yet
        listener.cancel()
        done, _ = await asyncio.wait({listener}, timeout=2)
        listener.cancel()
        return bool(done)

    assert asyncio.run(main())
