"""What is about transactions, locks and races holds on PostgreSQL as it does on SQLite.

The tests themselves are elsewhere and run on SQLite with all others; here they run once more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.postgresql import Cluster, cluster, run_on
from tests.webserver import wait_until, web

BOTH = [
    "tests/ciserver/accounts/test_idempotency.py",
    "tests/ciserver/lib/test_durability.py",
    "tests/ciserver/lib/test_outbox.py",
    "tests/ciserver/pipelines/test_leases.py",
    "tests/ciserver/pipelines/test_turns.py",
    "tests/ciserver/webhooks/test_twins.py",
    "tests/ciserver/webhooks/test_order.py",
    "tests/ciserver/webhooks/test_ledger.py",
    "tests/ciserver/releases/test_leases.py",
    "tests/ciserver/releases/test_retention_races.py",
    "tests/ciserver/notifications/test_outgoing.py",
]
# What waits for a second or more, or is about no database.
RACES = "not heartbeat and not thirty_promotions and not pool_processes and not hangs and not found"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


def test_locks_leases_the_outbox_and_dedupe_hold_on_postgresql(postgresql: Cluster) -> None:
    quick = ("-q", "-x", "-p", "no:cacheprovider", "--nomigrations")  # the other test migrates
    done = run_on(postgresql.url, [*quick, "-k", RACES, *BOTH])
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout


def test_while_the_database_is_away_a_webhook_is_refused_and_never_lost_after_a_2xx(
    postgresql: Cluster, tmp_path: Path
) -> None:
    with web(tmp_path / "home", GANTRY_DATABASE_URL=postgresql.url) as server:
        with httpx.Client(timeout=20) as forge:
            assert forge.send(server.request()).status_code == 202

            postgresql.stop()
            for _ in range(3):
                began = time.monotonic()
                answer = forge.send(server.request())
                assert answer.status_code == 503
                assert answer.headers["Retry-After"]
                assert time.monotonic() - began < 2
            assert forge.get(f"{server.url}/readyz").status_code == 503

            postgresql.start()
            wait_until(lambda: forge.send(server.request()).status_code == 202, 10)
        assert server.deliveries() == 2
