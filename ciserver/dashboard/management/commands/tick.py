"""``manage.py tick``: the scheduler. Finds what was lost and sets it going again.

Any number may run: each thing done here is one atomic statement, so that two do it once.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import connection

from ciserver.accounts import idempotency, lock
from ciserver.accounts.services import check_audit
from ciserver.accounts.sessions import SessionStore
from ciserver.celery import app
from ciserver.dashboard.image_reading import forget_unused, promise_unread
from ciserver.lib import loading, outbox
from ciserver.lib.leasing import Watch
from ciserver.notifications import outgoing
from ciserver.pipelines import leases
from ciserver.pipelines.models import HEARTBEAT, LEASE
from ciserver.pipelines.starting import start_scheduled
from ciserver.pipelines.statuses import tell_forges
from ciserver.releases import events, removal
from ciserver.releases.queue import look_at_waiting
from ciserver.releases.runner import recover_deployments
from ciserver.repositories.git import tidy_hosted
from ciserver.webhooks.reconcile import look_around
from ciserver.webhooks.services import forget_old, ingest_spools

log = logging.getLogger(__name__)

TIDY_SECONDS = 60.0
HOUR = 3600.0
LOOK_SECONDS = 20.0  # drift is to be found within a minute


def tidy_workers() -> None:
    """The scheduler has no root: workers look after their machine and its hosts."""
    app.send_task("ciserver.pipelines.tasks.tidy")
    app.send_task("ciserver.releases.tasks.restore_routes")
    if removal.anything_due():
        app.send_task("ciserver.releases.tasks.remove_all", expires=TIDY_SECONDS)


def look_at_hosts() -> None:
    """A look that waits for longer than until the next one is not needed any more."""
    app.send_task("ciserver.releases.tasks.look", expires=LOOK_SECONDS)


def make_room() -> None:
    app.send_task("ciserver.releases.tasks.retire", expires=HOUR)
    app.send_task("ciserver.pipelines.tasks.prune", expires=HOUR)
    app.send_task("ciserver.repositories.tasks.repack", expires=HOUR)


CHORES: dict[str, Callable[[], object]] = {
    "wake workers for what none has claimed": outbox.sweep,
    "recover pipelines of dead workers": partial(leases.recover, Watch(LEASE, HEARTBEAT)),
    "recover deployments of dead workers": partial(recover_deployments, Watch(LEASE, HEARTBEAT)),
    "let promotions go that need not wait any more": look_at_waiting,
    "take up pushes that were not told": ingest_spools,
    "start pipelines by the time of day": start_scheduled,
    "tell forges how pipelines stand": tell_forges,
    "note events and send webhooks": events.note,
    "look for heads that no webhook told of": look_around,
}


class Command(BaseCommand):
    requires_system_checks = ()  # they load every page: see ciserver.celery
    help = "Run the scheduler until SIGTERM."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--interval", type=float, default=2.0, help="seconds between rounds")
        parser.add_argument("--once", action="store_true", help="one round, then exit")

    def handle(self, *args: Any, **options: Any) -> None:
        loading.done()
        stop = threading.Event()
        if options["once"]:
            stop.set()
        else:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.set())
        tidied = looked = time.monotonic()
        checked = tidied - HOUR
        while True:
            for name, chore in CHORES.items():
                _do(name, chore)
            if time.monotonic() - tidied > TIDY_SECONDS:
                tidied = time.monotonic()
                _do("have workers tidy up", tidy_workers)
            if time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                _do("have workers look at hosts", look_at_hosts)
            if time.monotonic() - checked > HOUR:
                checked = time.monotonic()
                _do("check the audit log", check_audit)
                _do("forget sessions that ended", SessionStore.clear_expired)
                _do("forget old guesses of passwords", lock.forget_old)
                _do("forget answers to repeated requests", idempotency.forget_old)
                _do("forget old events and webhooks", outgoing.forget_old)
                _do("forget old deliveries", forget_old)
                _do("remove what broken pushes left", tidy_hosted)
                _do("have workers make room", make_room)
                _do("have images read that never were", promise_unread)
                _do("forget images that no project has", forget_unused)
            if stop.wait(options["interval"]):
                return


def _do(name: str, chore: Callable[[], object]) -> None:
    try:
        chore()
    except Exception:
        # One chore's trouble (a database away, a full disk) must not stop the others.
        log.exception("could not %s", name)
        connection.close()
