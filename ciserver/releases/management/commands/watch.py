"""``manage.py watch``: starts deployed containers that crash again, and does what is asked of
containers, until it is killed."""

from __future__ import annotations

import threading

from django.core.management.base import BaseCommand

from ciserver.lib import loading
from ciserver.releases import watch
from ciserver.releases.daytwo import attending


class Command(BaseCommand):
    requires_system_checks = ()  # they load every page: see ciserver.celery
    help = "Start deployed containers that crash again; do what is asked of containers."

    def handle(self, *args: object, **options: object) -> None:
        loading.done()
        threading.Thread(target=attending.attend, name="attend", daemon=True).start()
        watch.follow()
