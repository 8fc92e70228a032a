"""The short form: a few repositories, a few kills, the same reckoning."""

from __future__ import annotations

import pytest

from tests.faults.run import Plan, carry_out, table

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(300)]


ALL = (
    "worker",
    "web",
    "redis",
    "restart of worker",
    "scheduler",
    "pool",
    "restart of web",
    "pause of pool",
)
# What the database has a part in; the rest is the same on both.
OF_POSTGRESQL = ("worker", "web", "crash of postgresql")


@pytest.mark.parametrize("database", ["SQLite", "PostgreSQL"])
def test_what_was_acknowledged_is_built_once_whatever_is_killed(database: str) -> None:
    postgresql = database == "PostgreSQL"
    plan = Plan(
        postgresql=postgresql,
        deliveries=30 if postgresql else 60,
        repositories=3,
        branches=2,
        steps=2,
        per_second=20,
        pause=1.2,
        kill_first=OF_POSTGRESQL if postgresql else ALL,
        lease=8,
        outage=2,
        settle=120,
    )

    outcome = carry_out(plan)

    print(table(outcome))
    assert outcome.verdict.wrong == []
    assert outcome.verdict.reasons == {}
    assert outcome.verdict.ends["passed"] > 0
    assert outcome.double_pushes == 0
    assert outcome.logs.lines > 0
    assert outcome.logs.wrong == 0
    assert outcome.left_behind == []
    assert max(outcome.chaos.noticed) <= plan.lease + 10
    assert max(outcome.chaos.again) <= 40
    assert max(outcome.chaos.survived, default=0) <= 5
    assert outcome.restart is not None
    assert outcome.restart <= 15
    assert outcome.slowest_in_outage <= 4  # seconds, after which a forge is told to try again
