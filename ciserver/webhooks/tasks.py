"""What a worker does for an accepted delivery, and for one that may be missing."""

from __future__ import annotations

from celery import shared_task

from ciserver.webhooks import reconcile, runner


@shared_task(name="ciserver.webhooks.tasks.plan")
def plan(delivery_id: int) -> None:
    runner.plan(delivery_id)


@shared_task(name="ciserver.webhooks.tasks.look")
def look(project_id: int) -> None:
    """Compare an outside repository with what we were told of it."""
    reconcile.look(project_id)
