"""``manage.py watch``: starts deployed containers that crash again, until it is killed."""

from __future__ import annotations

from django.core.management.base import BaseCommand

from ciserver.releases import watch


class Command(BaseCommand):
    help = "Start deployed containers that crash again."

    def handle(self, *args: object, **options: object) -> None:
        watch.follow()
