"""Celery's way in."""

from __future__ import annotations

from celery import shared_task

from ciserver.notifications import outgoing, services


@shared_task(name="ciserver.notifications.tasks.send")
def send(status_id: int) -> None:
    services.deliver(status_id)


@shared_task(name="ciserver.notifications.tasks.send_message")
def send_message(message_id: int) -> None:
    outgoing.deliver(message_id)
