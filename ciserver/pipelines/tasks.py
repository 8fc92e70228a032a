"""Celery's way in: load by id, call the runner."""

from __future__ import annotations

from celery.signals import worker_ready

from ciserver.celery import app
from ciserver.pipelines import runner


@app.task(name="ciserver.pipelines.tasks.run")
def run(pipeline_id: int) -> None:
    """A message is a wake-up, no more: which pipeline runs is the database's to say."""
    runner.run_next()


@app.task(name="ciserver.pipelines.tasks.inspect")
def inspect(inspection_id: int) -> None:
    runner.inspect(inspection_id)


@app.task(name="ciserver.pipelines.tasks.tidy")
def tidy() -> None:
    """Remove what dead workers left on this machine."""
    runner.tidy()


@app.task(name="ciserver.pipelines.tasks.prune")
def prune() -> None:
    """Keep this machine's store within its age and size."""
    runner.prune()


@worker_ready.connect
def _tidy_at_start(**_: object) -> None:
    tidy.delay()
