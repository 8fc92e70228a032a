"""What comes before a body is limited too, also for whoever signs nothing."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
import uvicorn

from ciserver.lib.asgi import Message, Receive, Scope, Send
from ciserver.serve import MAX_HEAD, LimitedHeads


async def sizes(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers how many bytes the body had."""
    read, more = 0, True
    while more:
        message: Message = await receive()
        read += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(read).encode()})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    config = uvicorn.Config(sizes, http=LimitedHeads, ws="none", lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX-A: ", b"GET / HTTP/1.1\r\n"])
def test_a_head_without_end_is_refused_and_not_kept(url: str, start: bytes) -> None:
    more = b"X-B: 1\r\n" * 8192 if start.endswith(b"\r\n") else b"a" * 65536
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=10) as sock:
        sent = 0
        with suppress(OSError):
            sock.sendall(start)
            while sent < 400 * MAX_HEAD:
                sock.sendall(more)
                sent += len(more)
            pytest.fail("it read on")


def test_large_bodies_and_many_requests_of_one_connection_are_no_large_heads(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        for size in (0, 3 * 1024 * 1024, 100_000, 0):
            assert client.post("/", content=b"x" * size).text == str(size)
        fat = {"X-Fat": "a" * 30_000}
        for _ in range(10):
            assert client.get("/", headers=fat).status_code == 200


def test_requests_that_come_in_one_piece_are_all_answered(url: str) -> None:
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=10) as sock:
        one = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        sock.sendall(one * 20)
        told = b""
        while told.count(b"200 OK") < 20:
            told += sock.recv(65536)
