"""While Redis or the database is away no webhook waits for long, and none is told a false 2xx."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import httpx
import pytest

from tests.webserver import Web, redis, wait_until, web

pytestmark = pytest.mark.root  # it mounts


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Its database has a small disk of its own."""
    home = tmp_path_factory.mktemp("web") / "home"
    disk = home / "db"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", disk], check=True)
    try:
        with web(home) as running:
            yield running
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.fixture
def forge() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=20) as client:
        yield client


def test_webhooks_are_answered_at_once_while_redis_hangs_and_while_it_is_gone(
    server: Web, forge: httpx.Client
) -> None:
    took = []
    before = server.deliveries()

    def post() -> None:
        began = time.monotonic()
        assert forge.send(server.request()).status_code == 202
        took.append(time.monotonic() - began)

    for _ in range(10):
        post()  # nobody listens at its socket
    with redis(server.home) as process:
        post()
        process.send_signal(signal.SIGSTOP)
        for _ in range(20):
            post()

    assert max(took) < 1
    assert server.deliveries() - before == len(took)


def test_while_another_holds_the_database_a_webhook_is_refused_before_its_forge_gives_up(
    server: Web, forge: httpx.Client
) -> None:
    before = server.deliveries()
    held = server.request()
    with closing(sqlite3.connect(server.home / "db" / "gantry.sqlite3", timeout=20)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        answer = forge.send(held)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert time.monotonic() - began < 5  # Gitea's patience
        other.execute("ROLLBACK")

    wait_until(lambda: forge.send(server.request()).status_code == 202, 10)
    again = forge.send(held)

    # It was at work when it was told 503, so it may have been recorded after all: once.
    assert again.status_code in {200, 202}
    assert server.deliveries() - before == 2


def test_while_the_disk_of_the_database_is_full_a_webhook_is_refused_and_afterwards_taken(
    server: Web, forge: httpx.Client
) -> None:
    before = server.deliveries()
    filling = server.home / "db" / "filling"
    with filling.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    # What SQLite's files have room for already may still be taken, but not for ever.
    answers = [forge.send(server.request()).status_code for _ in range(50)]
    assert set(answers) <= {202, 503}
    assert answers[-5:] == [503] * 5

    filling.unlink()

    assert forge.send(server.request()).status_code == 202
    assert server.deliveries() - before == answers.count(202) + 1
