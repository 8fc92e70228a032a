"""What a worker does for an accepted delivery."""

from __future__ import annotations

from celery import shared_task

from ciserver.webhooks import runner


@shared_task(name="ciserver.webhooks.tasks.plan")
def plan(delivery_id: int) -> None:
    runner.plan(delivery_id)
