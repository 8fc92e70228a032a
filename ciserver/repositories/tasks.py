"""Celery's way in."""

from __future__ import annotations

from ciserver.celery import app
from ciserver.repositories.packing import repack_all


@app.task(name="ciserver.repositories.tasks.repack")
def repack() -> None:
    """Pack what pushes and fetches left in many pieces."""
    repack_all()
