"""What becomes of a request whose connection breaks, or that is one too many."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ciserver.cli.client import Client
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.settings import Settings

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}'
TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER without time: closing resets


@contextmanager
def breaking(times: int, says: bytes = b"") -> Iterator[tuple[Client, list[bytes]]]:
    """A client of a server that breaks that many connections, or ``says`` that instead, and what
    the server was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            for number in range(2):
                try:
                    connection, _ = server.accept()
                except OSError:  # the test is done and asked once only
                    return
                with connection:
                    asked.append(connection.recv(65536))
                    if number < times and says:
                        connection.sendall(says)
                    elif number < times:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    else:
                        connection.sendall(ANSWER)

        threading.Thread(target=serve, daemon=True).start()
        with Client(Settings(url=url, token="gantry_x"), timeout=5) as client:
            yield client, asked


def test_what_broke_is_asked_once_more_and_a_write_has_the_same_key() -> None:
    with breaking(1) as (client, asked):
        assert client.get("/projects/") == {"a": 1}
    assert len(asked) == 2
    with breaking(1) as (client, asked):
        assert client.post("/projects/", slug="shop") == {"a": 1}
    keys = [
        line.partition(b": ")[2]
        for request in asked
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"idempotency-key")
    ]
    assert len(keys) == 2
    assert keys[0] == keys[1]


def test_what_breaks_twice_cannot_be_reached() -> None:
    with breaking(2) as (client, asked), pytest.raises(CliError, match="cannot be reached") as told:
        client.get("/projects/")
    assert (told.value.exit_code, len(asked)) == (Exit.UNREACHABLE, 2)


def test_one_request_too_many_waits_as_long_as_it_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    began = time.monotonic()
    with breaking(1, TOO_MANY + b"Retry-After: 1\r\n\r\n") as (client, asked):
        assert client.get("/projects/") == {"a": 1}
    assert time.monotonic() - began >= 1
    assert len(asked) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("waiting")) == ("", 1)
    with breaking(1, TOO_MANY + b"Retry-After: 1\r\n\r\n") as (client, asked):
        assert b"".join(client.chunks("/artifacts/1/")) == b'{"a": 1}'
    assert len(asked) == 2


@pytest.mark.parametrize("header", [b"", b"Retry-After: 3600\r\n", b"Retry-After: soon\r\n"])
def test_nobody_waits_without_being_told_or_for_an_hour(header: bytes) -> None:
    with breaking(1, TOO_MANY + header + b"\r\n") as (client, asked):
        with pytest.raises(CliError, match="429") as told:
            client.get("/projects/")
    assert (told.value.exit_code, len(asked)) == (Exit.REFUSED, 1)


OF_A_PORTAL = b"<html>Sign in</html>"
PAGE = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"


@pytest.mark.parametrize(
    ("status", "kind", "body", "told"),
    [
        (b"200 OK", b"text/html", OF_A_PORTAL, "is not Gantry: text/html"),
        (b"200 OK", b"application/json", b'["up"]', "is not Gantry: application/json"),
        (b"404 Not Found", b"text/html", OF_A_PORTAL, "it is not Gantry, or an older one"),
        (b"200 OK", b"application/json", b'{"results": [{}]}', "has no 'next': it is older or"),
        (b"200 OK", b"application/json", b'{"next": null}', "has no 'results': it is older or"),
    ],
)
def test_what_is_not_this_service_is_said_to_be_none(
    status: bytes, kind: bytes, body: bytes, told: str
) -> None:
    says = PAGE % (status, kind, len(body), body)
    with breaking(2, says) as (client, _), pytest.raises(CliError, match=told) as error:
        list(client.every("/projects/"))
    assert error.value.next_step


def test_what_an_older_service_does_not_say_is_named() -> None:
    body = b'{"running": [{}]}'
    says = PAGE % (b"200 OK", b"application/json", len(body), body)
    with breaking(2, says) as (client, _), pytest.raises(CliError, match="has no 'host'") as error:
        print(client.get("/environments/1/")["running"][0]["host"])
    assert "pip install ./client" in error.value.next_step


def test_ctrl_c_ends_with_130_and_says_nothing() -> None:
    """In a shell, that is how a program that was interrupted ends; 1 would be a failed pipeline."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        words = ["-m", "ciserver.cli", "logs", "hello", "-f", "--json"]
        asks = subprocess.Popen(
            # What a shell's background job starts would ignore it.
            ["env", "--default-signal=INT", sys.executable, *words],
            env=os.environ | {"GANTRY_URL": url, "GANTRY_TOKEN": "gantry_x"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        connection, _ = server.accept()
        with connection:
            asks.send_signal(signal.SIGINT)
            assert asks.communicate(timeout=30) == (b"", b"")
    assert asks.returncode == 130
