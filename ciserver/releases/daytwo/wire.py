"""The line between whoever reads a command's answer and the watcher that does it: two Redis lists.

A frame is a letter and bytes: ``o`` and ``e`` what it said on standard output and error, ``k``
nothing but a sign of life, ``x`` its end as JSON; towards it ``d`` standard input and ``c`` that
nothing more comes. Whoever reads says so every few seconds, and the command ends when it does not.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import cache
from typing import Any

import redis
import redis.asyncio
from django.conf import settings

from ciserver.lib.problems import Refused

WAKE = "gantry:commands"
PIECE = 32 * 1024  # bytes of a frame
AHEAD = 64  # frames that wait for the other side, at most
KEPT = 120  # seconds that anything of it stays in Redis
READER_LASTS, READER_SAYS = 15, 5  # seconds
SILENCE = 30.0  # seconds without a sign of life
Frame = tuple[bytes, bytes]


def _key(number: int, part: str) -> str:
    return f"gantry:command:{number}:{part}"


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.GANTRY.redis_url, socket_connect_timeout=1, socket_timeout=10
    )


def wake(number: int) -> None:
    """Tell watchers that something is asked. They also look by themselves."""
    with suppress(redis.RedisError, OSError):
        _client().rpush(WAKE, number)
        _client().expire(WAKE, KEPT)


def wait(seconds: int) -> None:
    """Until somebody calls ``wake``, or ``seconds`` are over."""
    try:
        _client().blpop([WAKE], timeout=seconds)
    except (redis.RedisError, OSError):
        time.sleep(seconds)


class Line:
    """The watcher's end."""

    def __init__(self, number: int) -> None:
        self._out, self._in = _key(number, "out"), _key(number, "in")
        self._reader = _key(number, "reader")

    def send(self, kind: bytes, data: bytes = b"", *, until: Callable[[], bool] = bool) -> None:
        """Waits while the reader is behind; gives up when ``until`` says so. Raises RedisError."""
        client = _client()
        for first in range(0, len(data), PIECE) or [0]:
            while client.llen(self._out) >= AHEAD:
                if until():
                    return
                time.sleep(0.02)
            client.rpush(self._out, kind + data[first : first + PIECE])
        client.expire(self._out, KEPT)

    def end(self, *, exit_code: int | None, reason: str) -> None:
        said = json.dumps({"exit_code": exit_code, "reason": reason}).encode()
        with suppress(redis.RedisError, OSError):  # the row says it too
            self.send(b"x", said, until=lambda: not self.read())

    def read(self) -> bool:
        """Whether somebody reads."""
        return bool(_client().exists(self._reader))

    def receive(self, seconds: int) -> Frame | None:
        """The next frame of standard input, if one comes in time."""
        found: Any = _client().blpop([self._in], timeout=seconds)
        return (found[1][:1], found[1][1:]) if found else None


def give(number: int, data: bytes, *, end: bool) -> None:
    """Standard input for a command. Raises Refused while it has not taken what it has."""
    pieces = [b"d" + data[first : first + PIECE] for first in range(0, len(data), PIECE)]
    sent = pieces + ([b"c"] if end else [])
    if not sent:
        return
    client, key = _client(), _key(number, "in")
    try:
        if client.llen(key) >= AHEAD:
            raise Refused(
                "The command has not read what it was given yet.",
                code="command.busy",
                hint="Send the same again in a moment.",
                status=429,
            )
        client.rpush(key, *sent)
        client.expire(key, KEPT)
    except (redis.RedisError, OSError) as error:
        raise away() from error


async def frames(number: int, stopping: Callable[[], bool]) -> AsyncIterator[Frame]:
    """What a command says, until it has ended: then its last frame is ``x``.

    An empty kind is nothing but time that passes. Raises Refused when Redis is away, or nobody
    does the command any more.
    """
    client = redis.asyncio.Redis.from_url(settings.GANTRY.redis_url, socket_timeout=None)
    out, reader = _key(number, "out"), _key(number, "reader")
    said = alive = time.monotonic() - READER_SAYS
    try:
        while not stopping():
            now = time.monotonic()
            if now - said >= READER_SAYS:
                said = now
                await client.set(reader, 1, ex=READER_LASTS)
            found: Any = await client.blpop([out], timeout=1)
            if found is None:
                if now - alive > SILENCE:
                    raise _nobody()
                yield b"", b""
                continue
            alive = now
            kind, data = found[1][:1], found[1][1:]
            yield kind, data
            if kind == b"x":
                return
    except (redis.RedisError, OSError) as error:
        raise away() from error
    finally:
        with suppress(redis.RedisError, OSError):
            await client.delete(reader)
        await client.aclose()


def away() -> Refused:
    return Refused(
        "Redis does not answer, and what containers say passes through it.",
        code="command.redis",
        hint="See that it runs ('gantry up' starts it), then ask again.",
        status=503,
    )


def _nobody() -> Refused:
    return Refused(
        "No worker does this: the watcher is not running, or it has just been killed.",
        code="command.nobody",
        hint="See its log, $GANTRY_HOME/logs/service/watcher.log, then ask again.",
        status=503,
    )
