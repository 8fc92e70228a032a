"""Celery's way in: load by id, call the runner."""

from __future__ import annotations

from ciserver.celery import app
from ciserver.pipelines import runner


@app.task(name="ciserver.pipelines.tasks.run")
def run(pipeline_id: int) -> None:
    runner.run(pipeline_id)
