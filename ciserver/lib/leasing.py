"""What leases go by: the database's clock, for those of machines differ; and not even that one
alone, for it may jump."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from operator import attrgetter
from typing import TypeVar

from django.db.models import DateTimeField, Expression, ExpressionWrapper, Model, QuerySet
from django.db.models.functions import Now

Row = TypeVar("Row", bound=Model)


def ends(lease: timedelta) -> Expression:
    """When a lease that is taken or renewed now ends."""
    return ExpressionWrapper(Now() + lease, output_field=DateTimeField())


class Watch:
    """Tells leases of the dead from those that only seem to have ended, as a clock jumped.

    Whoever lives renews every ``heartbeat``, whatever the clock says. So a lease that was not seen
    to change for as long as it lasts is one of the dead, also when the clock went back; and one
    that is over by the clock is believed to be so once a heartbeat was missed. It notes what it
    saw, by this process's monotonic clock.
    """

    def __init__(
        self,
        lease: timedelta,
        heartbeat: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lease = lease.total_seconds()
        self._missed = heartbeat.total_seconds() * 1.2
        self._clock = clock
        self._seen: dict[int, tuple[datetime | None, float]] = {}

    def dead(self, leases: Mapping[int, datetime | None], over: set[int]) -> set[int]:
        """Of ``leases`` (a row's id, and until when), those that nobody holds any more; ``over``
        are those that have ended by the database's clock."""
        now = self._clock()
        seen = {key: (until, now) for key, until in leases.items()}
        seen |= {key: self._seen[key] for key in leases if self._same(key, leases[key])}
        self._seen = seen
        waited = {key: now - since for key, (_, since) in seen.items()}
        return {
            key
            for key, seconds in waited.items()
            if seconds >= self._lease or (key in over and seconds >= self._missed)
        }

    def _same(self, key: int, until: datetime | None) -> bool:
        return key in self._seen and self._seen[key][0] == until


def lost(running: QuerySet[Row], watch: Watch | None = None) -> list[Row]:
    """The rows of ``running`` whose ``lease_until`` is that of a dead worker, by their ids.

    Without a ``watch`` that saw them before, the database's clock decides alone.
    """
    rows = {row.pk: row for row in running}  # first, so that what is renewed by now is left alone
    over = set(running.filter(lease_until__lt=Now()).values_list("pk", flat=True)) & rows.keys()
    if watch:
        until = attrgetter("lease_until")
        over = watch.dead({key: until(row) for key, row in rows.items()}, over)
    return [rows[key] for key in sorted(over)]
