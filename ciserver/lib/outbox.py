"""Promise work inside a transaction; wake a worker after it; wake again what was lost."""

from __future__ import annotations

import logging
import os
import queue
import threading
from datetime import timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from ciserver.celery import app
from ciserver.lib.models import OutboxEntry

log = logging.getLogger(__name__)
# Written out: every webhook makes one, and Django takes five times as long to say the same.
PROMISE = """
INSERT INTO lib_outboxentry (topic, object_id, created_at) VALUES (%s, %s, %s)
ON CONFLICT DO NOTHING
"""
LOST_AFTER = timedelta(seconds=10)
AT_A_TIME = 20  # of one topic: what waits for a free worker is not lost, all of it would be a flood
# The sweeper's own wake-ups are worth nothing once it has sent the next ones.
STALE_SECONDS = 60.0


def promise(topic: str, object_id: int) -> None:
    """Record that ``topic`` must be handled for ``object_id`` and wake a worker on commit.

    Topics are the keys of ``settings.OUTBOX_TASKS``. Promising twice is promising once.
    """
    if topic not in settings.OUTBOX_TASKS:
        raise KeyError(f"no task handles the topic {topic!r}")
    with connection.cursor() as cursor:
        now = connection.ops.adapt_datetimefield_value(timezone.now())
        cursor.execute(PROMISE, [topic, object_id, now])
    transaction.on_commit(lambda: _waker.wake(topic, object_id))


def keep(topic: str, object_id: int) -> None:
    """The promise is kept: the object carries its own state from here on."""
    OutboxEntry.objects.filter(topic=topic, object_id=object_id).delete()


def wake_for_more(topic: str) -> bool:
    """Wake one more worker if a promise of ``topic`` is left; for who has just become free."""
    entry = OutboxEntry.objects.filter(topic=topic).order_by("created_at", "pk").first()
    return entry is not None and _wake(topic, entry.object_id)


def sweep() -> int:
    """Wake a worker again for promises that none has claimed; the number of them."""
    return sum(_sweep(topic) for topic in settings.OUTBOX_TASKS)


def _sweep(topic: str) -> int:
    now = timezone.now()
    entries = OutboxEntry.objects.filter(topic=topic)
    stale = Q(woken_at__lt=now - LOST_AFTER) | Q(woken_at=None, created_at__lt=now - LOST_AFTER)
    if topic in settings.OUTBOX_SHARED:
        # Whoever wakes takes what is first, so that a few wake-ups do for however many wait.
        first = entries.order_by("created_at", "pk")[:AT_A_TIME]
        due = [entry for entry in first if (entry.woken_at or entry.created_at) < now - LOST_AFTER]
    else:
        # In turns: what fails again and again must not keep the sweeper from the rest.
        turn = F("woken_at").asc(nulls_first=True)
        due = list(entries.filter(stale).order_by(turn, "created_at", "pk")[:AT_A_TIME])
    woken = 0
    for entry in due:
        if not _wake(topic, entry.object_id, expires=STALE_SECONDS):
            break  # the broker is away, for the others too
        OutboxEntry.objects.filter(pk=entry.pk).update(woken_at=now)
        woken += 1
    return woken


def _wake(topic: str, object_id: int, *, expires: float | None = None) -> bool:
    try:
        app.send_task(settings.OUTBOX_TASKS[topic], args=[object_id], expires=expires)
    except Exception as error:
        log.warning("no worker woken for %s %s: %s", topic, object_id, error)
        return False
    return True


class Waker:
    """Wakes workers at once, in the thread that made the promise."""

    def wake(self, topic: str, object_id: int) -> None:
        _wake(topic, object_id)


class BackgroundWaker(Waker):
    """Wakes workers from a thread of its own, so that nobody waits for a broker that hangs.

    What does not fit into the line any more, or is lost with the process, the sweeper finds.
    """

    def __init__(self, most: int = 1000) -> None:
        self._line: queue.Queue[tuple[str, int]] = queue.Queue(most)
        self._lock = threading.Lock()
        self._owner = 0  # the process whose thread it is: a fork has none

    def wake(self, topic: str, object_id: int) -> None:
        self._ensure_thread()
        try:
            self._line.put_nowait((topic, object_id))
        except queue.Full:
            log.warning("no worker woken for %s %s: too many wait", topic, object_id)

    def _ensure_thread(self) -> None:
        with self._lock:
            if self._owner != os.getpid():
                self._owner = os.getpid()
                threading.Thread(target=self._work, name="waker", daemon=True).start()

    def _work(self) -> None:
        while True:
            _wake(*self._line.get())


_waker = Waker()


def wake_in_background() -> None:
    """From now on no promise waits for the broker; for a process that answers people."""
    global _waker  # noqa: PLW0603 - what kind of process this is, said once at its start
    _waker = BackgroundWaker()
