"""Telling pages that a pipeline's rows changed. A missed message costs a moment, nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import cache

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
    # No time-out on the socket: redis-py's default of 5 s would end an idle subscription.
    client = redis.asyncio.Redis.from_url(settings.GANTRY.redis_url, socket_timeout=None)
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    try:
        while True:
            yield
            try:
                if not pubsub.subscribed:
                    await pubsub.subscribe(channel)
                await pubsub.get_message(timeout=POLL_SECONDS)
            except (redis.RedisError, OSError):
                await asyncio.sleep(POLL_SECONDS)
    finally:
        await pubsub.aclose()  # type: ignore[no-untyped-call]
        await client.aclose()


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.GANTRY.redis_url, socket_connect_timeout=0.5, socket_timeout=0.5
    )
