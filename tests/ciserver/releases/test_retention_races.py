"""Retention marks images while people ask for them: none that was promised goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ciserver.lib.problems import Refused
from ciserver.releases import retention, services
from ciserver.releases.models import UNFINISHED, Deployment, Release
from tests.together import together

pytestmark = pytest.mark.django_db(transaction=True)
ADDRESS = "127.0.0.1:1"
ROUNDS = 25


@pytest.fixture
def old(hello: Any, passed: Any, monkeypatch: Any, settings: Any) -> list[Release]:
    """Eight releases that served qa long ago. Nothing needs the first five."""
    monkeypatch.setattr(retention, "NEWEST", 2)
    monkeypatch.setattr(retention, "WAYS_BACK", 2)
    settings.GANTRY = replace(settings.GANTRY, registry=ADDRESS)
    for _ in range(8):
        services.make_release(passed(repository=f"{ADDRESS}/hello"))
    Deployment.objects.update(state="succeeded", finished_at=timezone.now())
    Release.objects.update(created_at=timezone.now() - timedelta(days=100))
    return list(Release.objects.order_by("number"))


def test_no_promised_image_is_marked_whoever_comes_first(
    hello: Any, old: list[Release], alice: Any
) -> None:
    qa, prod = hello.environments.order_by("position")
    first, second = old[:2]
    came = set()

    def back() -> str:
        services.roll_back(environment=qa, release=first, user=alice)
        return "promised"

    def on() -> str:
        services.promote(release=second, environment=prod, user=alice)
        return "promised"

    def mark() -> str:
        retention.mark(hello)
        return "marked"

    def outcome(act: Callable[[], str]) -> str:
        try:
            return act()
        except Refused as refused:
            assert "was removed from the registry" in str(refused)
            return "refused"

    for _ in range(ROUNDS):
        said = together(outcome, [back, mark, on])
        going = Deployment.objects.filter(state__in=UNFINISHED).select_related("release")
        assert {row.release.name for row in going if row.release.removed_at} == set()
        assert going.count() == said.count("promised")
        came |= set(said)
        going.update(state="cancelled")
        Release.objects.update(removed_at=None)
    assert came >= {"promised", "marked"}
