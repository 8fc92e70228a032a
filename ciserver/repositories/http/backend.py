"""One run of ``git http-backend``: the request streams in, the response streams out.

Nothing is buffered whole in either direction: a slow client slows Git down, a dead one ends it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ciserver.lib.asgi import Receive, Send
from ciserver.repositories.command import MEMORY

log = logging.getLogger(__name__)

SIDE_BAND = b"side-band-64k"
KEEP_ALIVE = b"0005\x01"  # an empty packet, which Git sends while it is at work
CHUNK = 64 * 1024
MAX_HEADER = 16 * 1024
KEPT_STDERR = 4096
TIDYING = 5.0  # seconds
IDLE = 120.0  # seconds without a byte either way; Git itself sends a keep-alive every 5
TOTAL = 3600.0  # seconds of one request


class ClientGone(Exception):
    """The client closed the connection."""


class TooLarge(Exception):
    """The request's body goes on past ``limit``."""


class Backend:
    """Runs the CGI program with ``env`` alone; ``fds`` are handed down to it and its hooks.

    ``limit`` is of the request's body, in bytes. Git refuses a pack of more than ``told[0]`` by
    itself, but does not say what to do about it: ``told[1]`` is shown before its own words.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        fds: tuple[int, ...] = (),
        *,
        limit: int,
        told: tuple[int, str] | None = None,
    ) -> None:
        self.env = env
        self.fds = fds
        self.limit = limit
        self._told = told
        self._words = b""  # to be shown, once Git answers
        self._shows = False  # whether the client shows words beside Git's answer
        self.started = False  # whether the response's head has been sent
        self._idle: asyncio.Timeout | None = None

    async def run(self, receive: Receive, send: Send, spawned: Callable[[], None]) -> None:
        """Serve one request. Raises ClientGone, TooLarge or TimeoutError; Git is dead afterwards.

        ``spawned`` is called once the process has its own copies of ``fds``.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                "prlimit", f"--data={MEMORY}", "git", "http-backend",
                env=self.env, pass_fds=self.fds, limit=MAX_HEADER,
                stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True,
            )  # fmt: skip
        finally:
            spawned()
        try:
            async with asyncio.timeout(TOTAL), asyncio.timeout(IDLE) as self._idle:
                await self._converse(process, receive, send)
        finally:
            await _end(process, gently=bool(self.fds))

    async def _converse(self, process: Process, receive: Receive, send: Send) -> None:
        feed = asyncio.create_task(self._feed(process, receive))
        complaints = asyncio.create_task(_tail(process))
        answer = asyncio.create_task(self._answer(process, send))
        tasks: list[asyncio.Task[Any]] = [feed, complaints, answer]
        try:
            # The feed only ends by an error: the client went away, or sends too much.
            await asyncio.wait([feed, answer], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                feed.result()
            answer.result()
            if said := (await complaints).strip():
                log.info("git http-backend: %s", said)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _feed(self, process: Process, receive: Receive) -> None:
        stdin = process.stdin
        assert stdin is not None  # noqa: S101 - it is a pipe
        fed = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            self._touch()
            self._shows |= fed == 0 and SIDE_BAND in message.get("body", b"")
            fed += len(message.get("body", b""))
            if fed > self.limit:
                raise TooLarge
            if self._told and fed > self._told[0]:
                self._words = _packet(self._told[1])
            # Git may have ended without reading everything; its answer says why.
            with suppress(BrokenPipeError, ConnectionResetError):
                if message.get("body") and not stdin.is_closing():
                    stdin.write(message["body"])
                    await stdin.drain()
                if not message.get("more_body"):
                    stdin.close()

    async def _answer(self, process: Process, send: Send) -> None:
        stdout = process.stdout
        assert stdout is not None  # noqa: S101 - it is a pipe
        status, headers = await _head(stdout)
        self.started = True
        await send({"type": "http.response.start", "status": status, "headers": headers})
        at_beginning = status == 200
        while chunk := await stdout.read(CHUNK):
            self._touch()
            if at_beginning and self._shows and self._words:
                chunk, self._words = self._words + chunk, b""
            at_beginning = at_beginning and not chunk.replace(KEEP_ALIVE, b"")
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _touch(self) -> None:
        if self._idle:
            self._idle.reschedule(asyncio.get_running_loop().time() + IDLE)


def _packet(words: str) -> bytes:
    """One of side band 2, whose words a client shows (gitprotocol-pack(5))."""
    return f"{len(words.encode()) + 5:04x}\x02{words}".encode()


async def _head(stdout: asyncio.StreamReader) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Status and headers of a CGI response (RFC 3875, 6.3)."""
    status, headers = 200, []
    while line := (await stdout.readline()).strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"status":
            status = int(value.split()[0])
        else:
            headers.append((name.lower(), value.strip()))
    if not headers and status == 200:
        raise ConnectionError("git http-backend ended without an answer")
    return status, headers


async def _tail(process: Process) -> str:
    stderr = process.stderr
    assert stderr is not None  # noqa: S101 - it is a pipe
    kept = b""
    while chunk := await stderr.read(CHUNK):
        kept = (kept + chunk)[-KEPT_STDERR:]
    return kept.decode(errors="replace")


async def _end(process: Process, *, gently: bool) -> None:
    """``gently``: let it find that nothing more comes, and remove what a broken push has brought.

    A signal would have it leave all of that on the disk.
    """
    if gently and process.stdin and process.returncode is None:
        process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(TIDYING):
                await process.wait()
    if process.returncode is None:
        # The whole session, for Git starts helpers and hooks of its own.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
