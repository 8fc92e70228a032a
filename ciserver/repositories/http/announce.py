"""The two pipes by which a push is announced: the hook tells, hears the answer, and shows it.

No address, no token, no second connection: only a process that we started holds the ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

log = logging.getLogger(__name__)
MAX_ANSWER = 32 * 1024  # fits a pipe: writing it never waits for the hook
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

    async def answer(self, ingest: Callable[[], Awaitable[str]]) -> None:
        """Wait for the hook, call ``ingest``, send its text. Ends when the hook's end closes."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        file = os.fdopen(self._told, "rb", buffering=0)
        self._told = -1
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), file
        )
        try:
            if await reader.readline():
                self._say(await _text(ingest))
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

    def _say(self, text: str) -> None:
        with suppress(BrokenPipeError):
            os.write(self._answer, text.encode()[:MAX_ANSWER])


async def _text(ingest: Callable[[], Awaitable[str]]) -> str:
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return await ingest()
    except Exception:
        log.exception("a push was taken but not recorded yet; the scheduler takes it up")
        return LATER
