"""Bodies at and over the limit, against a real server."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ciserver.webhooks.models import Delivery
from tests.ciserver.repositories.serving import Server, serve
from tests.ciserver.webhooks.conftest import push, sign

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def running(django_db_setup: None, django_db_blocker: Any) -> Iterator[Server]:
    with django_db_blocker.unblock(), serve() as server:
        yield server


@pytest.fixture
def server(running: Server, transactional_db: None) -> Server:
    return running


def test_24_mib_are_taken(server: Server, secret: str) -> None:
    body = _body(24 * MIB)
    assert _post(server, secret, b"{}").status_code == 400  # what the first request loads is kept
    held = _most_held(server)

    answer = _post(server, secret, body)

    assert answer.status_code == 202
    assert _most_held(server) - held < 64 * MIB
    assert Delivery.objects.latest("id").verdict == "accepted"


def test_40_mib_are_refused_before_they_are_read(server: Server, secret: str) -> None:
    held = _most_held(server)

    assert _refused_early(server, [f"Content-Length: {40 * MIB}"])
    assert _most_held(server) - held < 8 * MIB
    assert not Delivery.objects.exists()


def test_a_body_without_end_is_refused_while_it_is_read(server: Server, secret: str) -> None:
    held = _most_held(server)

    assert _refused_early(server, ["Transfer-Encoding: chunked"])
    assert _most_held(server) - held < 64 * MIB


def test_an_address_without_its_last_slash_is_taken(server: Server, secret: str) -> None:
    headers = {"X-Hub-Signature-256": sign(secret, b"{}"), "X-GitHub-Event": "ping"}
    answer = httpx.post(f"{server.url}/hooks/github/hello", content=b"{}", headers=headers)

    assert answer.status_code == 200


def test_a_large_body_to_any_other_page_is_refused(server: Server) -> None:
    answer = httpx.post(f"{server.url}/api/v1/projects/", content=b" " * (3 * MIB))

    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"


def _post(server: Server, secret: str, body: bytes) -> httpx.Response:
    headers = {"X-Hub-Signature-256": sign(secret, body), "X-GitHub-Event": "push"}
    headers["Content-Type"] = "application/json"
    return httpx.post(
        f"{server.url}/hooks/github/hello/", content=body, headers=headers, timeout=30
    )


def _body(size: int) -> bytes:
    start = json.dumps(push(commits=[]))[:-1].encode() + b', "pad": "'
    return start + b"x" * (size - len(start) - 2) + b'"}'


def _refused_early(server: Server, headers: list[str]) -> bool:
    """Send 100 MiB, or as much of it as the server takes; true if the answer was 413."""
    lines = ["POST /hooks/github/hello/ HTTP/1.1", "Host: localhost", *headers]
    chunk = b"%x\r\n" % MIB + b"x" * MIB + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n")
        sent = 0
        try:
            while sent < 100:
                sock.sendall(chunk)
                sent += 1
        except OSError:
            pass
        assert sent < 60, "the server read on"
        try:
            return sock.recv(100).split()[1] == b"413"
        except ConnectionResetError:
            return True  # it answered and closed, while we were still sending


def _most_held(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
