"""The outbox: Redis may lose whatever it likes."""

from __future__ import annotations

import threading
import time
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
    monkeypatch.setattr(
        outbox.app, "send_task", lambda name, args, expires: sent.append((name, args))
    )
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


def _promised_long_ago(topic: str, count: int) -> None:
    OutboxEntry.objects.bulk_create(
        OutboxEntry(topic=topic, object_id=number) for number in range(count)
    )
    OutboxEntry.objects.update(created_at=timezone.now() - timedelta(minutes=1))


def test_what_waits_for_a_free_worker_is_no_flood_of_messages(db: None, monkeypatch: Any) -> None:
    sent: list[int] = []
    monkeypatch.setattr(outbox.app, "send_task", lambda _, args, **__: sent.extend(args))
    _promised_long_ago("pipeline.queued", 100)

    for _ in range(5):  # ten seconds of the scheduler
        outbox.sweep()

    assert sent == list(range(outbox.AT_A_TIME))


def test_what_fails_again_and_again_keeps_the_sweeper_from_nothing(
    db: None, monkeypatch: Any
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(outbox.app, "send_task", lambda _, args, **__: sent.extend(args))
    _promised_long_ago("pipeline.queued", 100)
    _promised_long_ago("delivery.accepted", 100)

    for _ in range(5):
        outbox.sweep()

    assert sorted(sent) == sorted([*range(outbox.AT_A_TIME), *range(100)])


def test_a_sweep_gives_up_on_a_broker_that_is_away(db: None, monkeypatch: Any) -> None:
    asked: list[int] = []

    def away(_: str, args: list[int], **__: Any) -> None:
        asked.extend(args)
        raise OSError("Connection refused")

    monkeypatch.setattr(outbox.app, "send_task", away)
    _promised_long_ago("delivery.accepted", 100)

    assert outbox.sweep() == 0
    assert len(asked) == 1


def test_a_broker_that_hangs_holds_up_nobody_who_promises(monkeypatch: Any) -> None:
    hanging, sent = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        hanging.wait()
        sent.set()

    monkeypatch.setattr(outbox.app, "send_task", hang)
    waker = outbox.BackgroundWaker(most=3)
    began = time.monotonic()

    for number in range(10):
        waker.wake("pipeline.queued", number)

    assert time.monotonic() - began < 1
    hanging.set()
    assert sent.wait(5)
