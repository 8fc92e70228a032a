"""Redis only wakes workers: whatever it does, webhooks are answered at once and nothing is lost."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx

from tests.webserver import redis, web


def test_webhooks_are_answered_at_once_while_redis_hangs_and_while_it_is_gone(
    tmp_path: Path,
) -> None:
    with web(tmp_path / "home") as server, httpx.Client() as forge:
        took = []

        def post() -> None:
            began = time.monotonic()
            assert forge.send(server.request()).status_code == 202
            took.append(time.monotonic() - began)

        for _ in range(3):
            post()  # nobody listens at its socket
        with redis(server.home) as process:
            post()
            process.send_signal(signal.SIGSTOP)
            for _ in range(6):
                post()

        assert max(took) < 1
        assert server.deliveries() == len(took)
