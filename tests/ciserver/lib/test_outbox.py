"""The outbox: Redis may lose whatever it likes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from ciserver.lib import outbox
from ciserver.lib.models import OutboxEntry


@pytest.mark.django_db(transaction=True)
def test_a_promise_survives_a_broker_that_is_away() -> None:
    with transaction.atomic():  # this run has no Redis: nobody listens at its socket
        outbox.promise("pipeline.queued", 7)
    entry = OutboxEntry.objects.get()
    assert entry.woken_at is None


@pytest.mark.django_db(transaction=True)
def test_a_promise_is_undone_with_its_transaction() -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        outbox.promise("pipeline.queued", 7)
        raise RuntimeError
    assert not OutboxEntry.objects.exists()


def test_promising_twice_is_promising_once(db: None) -> None:
    outbox.promise("pipeline.queued", 7)
    outbox.promise("pipeline.queued", 7)
    assert OutboxEntry.objects.count() == 1


def test_a_topic_that_no_task_handles_is_a_programming_error(db: None) -> None:
    with pytest.raises(KeyError, match=r"no\.such"):
        outbox.promise("no.such", 1)


def test_the_sweeper_wakes_for_old_promises_only(db: None, monkeypatch: Any) -> None:
    sent: list[tuple[str, list[int]]] = []
    monkeypatch.setattr(outbox.app, "send_task", lambda name, args: sent.append((name, args)))
    old = timezone.now() - timedelta(minutes=1)
    for number, woken in ((1, old), (2, timezone.now()), (3, None)):
        OutboxEntry.objects.create(topic="pipeline.queued", object_id=number, woken_at=woken)
    OutboxEntry.objects.filter(object_id=3).update(created_at=old)
    assert outbox.sweep() == 2
    assert sorted(sent) == [
        ("ciserver.pipelines.tasks.run", [1]),
        ("ciserver.pipelines.tasks.run", [3]),
    ]
    assert outbox.sweep() == 0


def test_every_topic_names_a_task_that_exists(settings: Any) -> None:
    outbox.app.loader.import_default_modules()
    assert set(settings.OUTBOX_TASKS.values()) <= set(outbox.app.tasks)
