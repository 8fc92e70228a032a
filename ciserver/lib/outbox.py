"""Promise work inside a transaction; wake a worker after it; wake again what was lost."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from ciserver.celery import app
from ciserver.lib.models import OutboxEntry

log = logging.getLogger(__name__)
LOST_AFTER = timedelta(seconds=10)
AT_A_TIME = 20  # what waits for a free worker is not lost: waking for all of it would be a flood


def promise(topic: str, object_id: int) -> None:
    """Record that ``topic`` must be handled for ``object_id`` and wake a worker on commit.

    Topics are the keys of ``settings.OUTBOX_TASKS``. Promising twice is promising once.
    """
    if topic not in settings.OUTBOX_TASKS:
        raise KeyError(f"no task handles the topic {topic!r}")
    OutboxEntry.objects.get_or_create(topic=topic, object_id=object_id)
    transaction.on_commit(lambda: _wake(topic, object_id))


def keep(topic: str, object_id: int) -> None:
    """The promise is kept: the object carries its own state from here on."""
    OutboxEntry.objects.filter(topic=topic, object_id=object_id).delete()


def sweep() -> int:
    """Wake a worker again for every promise that none has claimed; the number of them."""
    now = timezone.now()
    stale = Q(woken_at__lt=now - LOST_AFTER) | Q(woken_at=None, created_at__lt=now - LOST_AFTER)
    entries = list(OutboxEntry.objects.filter(stale).order_by("created_at")[:AT_A_TIME])
    return sum(_wake(entry.topic, entry.object_id) for entry in entries)


def _wake(topic: str, object_id: int) -> bool:
    try:
        app.send_task(settings.OUTBOX_TASKS[topic], args=[object_id])
    except Exception as error:
        log.warning("no worker woken for %s %s: %s", topic, object_id, error)
        return False
    OutboxEntry.objects.filter(topic=topic, object_id=object_id).update(woken_at=timezone.now())
    return True
