"""Telling pages that a pipeline's rows changed. A missed message costs a moment, nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from django.conf import settings

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0
MATRIX = "gantry:matrix"


def publish(pipeline_id: int) -> None:
    """Say that the rows of a pipeline changed. Never raises: rows are the truth."""
    _publish(_channel(pipeline_id))


def publish_matrix() -> None:
    """Say that what runs where changed."""
    _publish(MATRIX)


async def changes(pipeline_id: int) -> AsyncIterator[None]:
    """Yields at once, on each ``publish`` and every 2 s at least, until the caller stops."""
    async for _ in _changes(_channel(pipeline_id)):
        yield


async def matrix_changes() -> AsyncIterator[None]:
    """The same for ``publish_matrix``."""
    async for _ in _changes(MATRIX):
        yield


def _channel(pipeline_id: int) -> str:
    return f"gantry:pipeline:{pipeline_id}"


def _publish(channel: str) -> None:
    try:
        _client().publish(channel, "")
    except (redis.RedisError, OSError) as error:
        log.debug("nobody was told of %s: %s", channel, error)


async def _changes(channel: str) -> AsyncIterator[None]:
    with _hub().listening(channel) as told:
        while True:
            yield
            with suppress(TimeoutError):
                # Not wait_for, which loses a cancel that comes with a message (Python 3.11): who
                # cancels would wait for ever.
                async with asyncio.timeout(POLL_SECONDS):
                    await told.wait()
            told.clear()


def version(pipeline_id: int) -> int:
    """Grows with each message of this pipeline that the running loop got."""
    return _hub().versions.get(_channel(pipeline_id), 0)


class _Hub:
    """One subscription for everybody who listens in an event loop, however many they are."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self._told: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def listening(self, channel: str) -> Iterator[asyncio.Event]:
        told = asyncio.Event()
        self._told.setdefault(channel, set()).add(told)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            yield told
        finally:
            self._told[channel].discard(told)
            if not self._told[channel]:
                del self._told[channel]
                self.versions.pop(channel, None)
            if not self._told and self._task:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (redis.RedisError, OSError):
                await asyncio.sleep(POLL_SECONDS)

    async def _listen(self) -> None:
        # No time-out on the socket: redis-py's default of 5 s would end an idle subscription.
        client = redis.asyncio.Redis.from_url(settings.GANTRY.redis_url, socket_timeout=None)
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.psubscribe("gantry:*")
            for channel in list(self._told):  # what they missed while nobody listened
                self._tell(channel)
            while True:
                message = await pubsub.get_message(timeout=POLL_SECONDS)
                if message is not None:
                    self._tell(message["channel"].decode())
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]
            await client.aclose()

    def _tell(self, channel: str) -> None:
        if channel in self._told:
            self.versions[channel] = self.versions.get(channel, 0) + 1
            for told in self._told[channel]:
                told.set()


# A subscription belongs to the event loop that made it; a web process has one.
_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, _Hub] = WeakKeyDictionary()


def _hub() -> _Hub:
    return _hubs.setdefault(asyncio.get_running_loop(), _Hub())


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.GANTRY.redis_url, socket_connect_timeout=0.5, socket_timeout=0.5
    )
