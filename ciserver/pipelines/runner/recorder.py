"""Writes what steps do: their output to the job's log at once, their rows from one thread.

Rows are written in batches, each one transaction, so that a build whose steps all come from
the cache is not slowed by a commit for each of them.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from django.db import DatabaseError, connection, transaction

from builders.build import StepInfo, StepResult
from ciserver.lib.durability import repeatable
from ciserver.pipelines import events
from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import Job, State, Step
from ciserver.pipelines.runner.completing import STREAMS, note_of
from runtime.sandbox import Stream
from runtime.spec import Receipt

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Change:
    position: int
    fields: dict[str, Any]


class StepRecorder:
    """A builders' BuildListener for one job. Leave its ``with`` block to have every row written.

    ``then`` hears of every step that ended.
    """

    def __init__(
        self,
        job: Job,
        writer: LogWriter,
        *,
        then: Callable[[StepInfo, StepResult], None] = lambda *_: None,
    ) -> None:
        self._job = job
        self._log = writer
        self._then = then
        self._changes: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._rows: dict[int, int] = {}  # their keys by position: nobody else makes steps of a job
        self._error: DatabaseError | None = None
        self._thread = threading.Thread(target=self._write_rows, name="recorder", daemon=True)

    def __enter__(self) -> StepRecorder:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._changes.put(None)
        self._thread.join()
        if self._error and error is None:
            raise self._error

    def step_started(self, step: StepInfo) -> None:
        self._log.say(step.text, step.index)
        fields = {
            "text": step.text,
            "stage": step.stage,
            "place": step.place,
            "state": State.RUNNING,
        }
        self._changes.put(_Change(step.index, fields))

    def step_output(self, step: StepInfo, stream: Stream, data: bytes) -> None:
        if data:
            self._log.write(step.index, STREAMS[stream], data)
        else:
            self._log.flush(step.index)

    def note(self, step: StepInfo) -> str:
        """For the sandbox that is about to write what ``step`` says."""
        return note_of(self._job, step.index, self._log)

    def step_finished(self, step: StepInfo, result: StepResult) -> None:
        if result.cached:
            self._log.say("cached", step.index)
        self.end(
            step,
            State.FAILED if result.error else State.PASSED,
            cached=result.cached,
            seconds=result.seconds,
            layer_bytes=result.layer_size,
            receipt=receipt_json(result.receipt),
        )
        self._then(step, result)

    def end(self, step: StepInfo, state: State, **fields: Any) -> None:
        """The step has ended; ``fields`` are its row's."""
        self._log.flush(step.index)
        self._changes.put(_Change(step.index, {"state": state, **fields}))

    def _write_rows(self) -> None:
        try:
            with repeatable():
                more = True
                while more:
                    batch, more = self._next_batch()
                    self._write(batch)
        except DatabaseError as error:  # raised again in __exit__, where the job can show it
            self._error = error
        finally:
            connection.close()

    def _next_batch(self) -> tuple[dict[int, dict[str, Any]], bool]:
        """Everything that is waiting (at least one change), merged by step."""
        merged: dict[int, dict[str, Any]] = {}
        change = self._changes.get()
        while change is not None:
            merged.setdefault(change.position, {}).update(change.fields)
            try:
                change = self._changes.get_nowait()
            except queue.Empty:
                return merged, True
        return merged, False

    def _write(self, batch: dict[int, dict[str, Any]]) -> None:
        if not batch:
            return
        new = [
            Step(job=self._job, position=position, **fields)
            for position, fields in batch.items()
            if position not in self._rows
        ]
        with transaction.atomic():
            for position in batch.keys() & self._rows.keys():
                Step.objects.filter(pk=self._rows[position]).update(**batch[position])
            Step.objects.bulk_create(new)
        self._rows |= {step.position: step.pk for step in new}
        events.publish(self._job.pipeline_id)


def receipt_json(receipt: Receipt | None) -> dict[str, Any] | None:
    return None if receipt is None else dataclasses.asdict(receipt)
