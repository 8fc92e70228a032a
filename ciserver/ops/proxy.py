"""Caddy at the service's end: what it serves is production, and goes on; one that serves nothing
is of no use and ends too."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

ANSWERS_WITHIN = 5.0  # seconds


async def stop_unless_it_serves(socket: Path) -> None:
    """Asks the Caddy whose administration is at ``socket``; one that does not answer is left."""
    try:
        async with asyncio.timeout(ANSWERS_WITHIN):
            apps = json.loads(await _asked("GET /config/apps", socket))
            if not (apps or {}).get("http", {}).get("servers"):
                await _asked("POST /stop", socket)
    except (OSError, TimeoutError, ValueError):
        return


async def _asked(what: str, socket: Path) -> bytes:
    """The body of the answer."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(f"{what} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return (await reader.read()).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()
