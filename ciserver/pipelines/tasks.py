"""Celery's way in: load by id, call the runner."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from celery.signals import worker_process_init, worker_ready

from ciserver.celery import app
from ciserver.pipelines import runner

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer


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


@worker_ready.connect
def _announce(sender: Consumer, **_: object) -> None:
    if app.conf.task_default_queue in sender.app.amqp.queues.consume_from:
        runner.announce()


@worker_process_init.connect
def _complete_logs(**_: object) -> None:
    """It may be here in place of one that was killed: people who look at a log see the rest of it
    now, not when the lease has ended. A pool process has to start in time: so by a thread."""
    threading.Thread(target=runner.complete, name="complete-logs", daemon=True).start()
