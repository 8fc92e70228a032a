"""deliveries, delivery and redeliver."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def delivery(history: Any) -> Any:
    from ciserver.webhooks.models import Delivery

    return Delivery.objects.create(
        project=history, forge="github", delivery_id="d-1", event="push", kind="push",
        ref="refs/heads/main", sha="a" * 40, verdict="failed", detail="The forge was away.",
        headers={"X-GitHub-Event": "push"}, body=b'{"ref": "refs/heads/main"}',
    )  # fmt: skip


def test_deliveries_are_listed_and_found(logged_in: Gantry, delivery: Any) -> None:
    rows = json.loads(logged_in("deliveries", "hello", "--find", "aaaa", "--json").out)
    assert [row["id"] for row in rows] == [delivery.pk]
    assert "The forge was away." in " ".join(logged_in("deliveries").out.split())
    assert json.loads(logged_in("deliveries", "--verdict", "stale", "--json").out) == []


def test_one_is_shown_as_it_came(logged_in: Gantry, delivery: Any) -> None:
    out = logged_in("delivery", str(delivery.pk)).out
    assert "X-GitHub-Event: push" in out
    assert "verdict: failed: The forge was away." in out
    assert '{"ref": "refs/heads/main"}' in out


def test_one_is_taken_again(logged_in: Gantry, delivery: Any) -> None:
    ran = logged_in("redeliver", str(delivery.pk))
    assert ran.exit_code == 0
    assert (
        f"Delivery {delivery.pk} is recorded once more, as {delivery.pk + 1}: accepted." in ran.out
    )
