"""The two pipes by which a push is announced: the hook tells, hears the answer, and shows it.

No address, no token, no second connection: only a process that we started holds the ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable

log = logging.getLogger(__name__)
WAIT = b"wait"
PIECE = 4096  # bytes: a pipe takes so much whole or not at all (pipe(7), PIPE_BUF)
PAUSE = 0.05  # seconds, while the pipe is full
ANSWER_WITHIN = 15.0  # seconds
LATER = (
    "Git took the push, Gantry has yet to record it; the project's page shows what comes of it.\n"
)


class Announcement:
    """Our ends of the pipes, and the ends that go to Git's hooks."""

    def __init__(self) -> None:
        self._told, self.tell = os.pipe()
        self.hear, self._answer = os.pipe()
        self._theirs = [self.tell, self.hear]

    def handed_over(self) -> None:
        """Close our copies of the hook's ends, so that its death can be noticed."""
        while self._theirs:
            os.close(self._theirs.pop())

    async def answer(
        self, ingest: Callable[[], Awaitable[str]], follow: Callable[[], AsyncIterator[str]]
    ) -> None:
        """Wait for the hook, call ``ingest``, send its text; and what ``follow`` gives if the
        pusher waits. Ends when the hook's end closes."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        file = os.fdopen(self._told, "rb", buffering=0)
        self._told = -1
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), file
        )
        try:
            if word := await reader.readline():
                os.set_blocking(self._answer, False)
                await self._say(await _text(ingest))
                if word.strip() == WAIT:
                    async for text in follow():
                        await self._say(text)
        except BrokenPipeError:
            pass  # the hook is gone, and with it whoever would have read
        finally:
            transport.close()
            self.close()

    def close(self) -> None:
        self.handed_over()
        for name in ("_told", "_answer"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)

    async def _say(self, text: str) -> None:
        """As fast as the hook reads: the pusher's line may be slow. Raises BrokenPipeError."""
        rest = text.encode()
        while rest:
            try:
                rest = rest[os.write(self._answer, rest[:PIECE]) :]
            except BlockingIOError:
                await asyncio.sleep(PAUSE)


async def _text(ingest: Callable[[], Awaitable[str]]) -> str:
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return await ingest()
    except Exception:
        log.exception("a push was taken but not recorded yet; the scheduler takes it up")
        return LATER
