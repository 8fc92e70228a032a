"""Celery's way in."""

from __future__ import annotations

from celery import shared_task

from ciserver.notifications import services


@shared_task(name="ciserver.notifications.tasks.send")
def send(status_id: int) -> None:
    services.deliver(status_id)
