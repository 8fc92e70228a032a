"""Is a child ready? One small asynchronous question per kind; each answers within a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

Ready = Callable[[], Awaitable[bool]]

_ANSWER_WITHIN = 1.0


def redis_answers(socket: Path) -> Ready:
    async def ask() -> bool:
        return await _exchange(b"PING\r\n", socket=socket) == b"+PONG\r\n"

    return ask


def http_answers(
    path: str, accepted: set[int], *, host: str = "", port: int = 0, socket: Path | None = None
) -> Ready:
    """Ready when GET ``path`` gives one of the ``accepted`` status codes."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host or 'localhost'}\r\nConnection: close\r\n\r\n"

    async def ask() -> bool:
        line = await _exchange(request.encode(), host=host, port=port, socket=socket)
        words = line.split()
        return len(words) > 1 and words[1].isdigit() and int(words[1]) in accepted

    return ask


def log_says(log: Path, words: bytes) -> Ready:
    """Ready when the log holds ``words`` beyond what it held when this was called."""
    start = log.stat().st_size if log.exists() else 0

    def look() -> bool:
        if not log.exists():
            return False
        with log.open("rb") as file:
            file.seek(start)
            return words in file.read()

    async def ask() -> bool:
        return look()

    return ask


async def at_once() -> bool:
    return True


async def _exchange(
    request: bytes, *, host: str = "", port: int = 0, socket: Path | None = None
) -> bytes:
    """The first line of the answer; b"" when there is none yet."""
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            if socket is not None:
                reader, writer = await asyncio.open_unix_connection(str(socket))
            else:
                reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return b""
