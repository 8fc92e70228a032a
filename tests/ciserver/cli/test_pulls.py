"""``gantry pulls``: what waits, and the approval of one commit."""

from __future__ import annotations

from typing import Any

import pytest

from ciserver.webhooks.models import PullRequest
from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_forks_commit_is_listed_and_approved_by_its_id(logged_in: Gantry, history: Any) -> None:
    PullRequest.objects.create(
        project=history, forge="github", number=7, title="Say more", sender="mallory",
        head="refs/heads/topic", base="refs/heads/main", ref="refs/pull/7/head", sha="ab" * 20,
        from_fork=True,
    )  # fmt: skip
    assert "abababababab" in logged_in("pulls", "list", "hello").out
    assert logged_in("pulls", "approve", "hello", "8", "abababab").exit_code == 4
    assert logged_in("pulls", "approve", "hello", "7", "ffffffff").exit_code == 4
    assert logged_in("pulls", "approve", "hello", "7", "ab").exit_code == 4
    assert logged_in("pulls", "approve", "hello", "7", "abababab").exit_code == 0
    assert PullRequest.objects.get().approved_by == "alice"
