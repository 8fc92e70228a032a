"""One job from start to end: its state, its log, and why it did not pass."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any

from django.db import transaction
from django.utils import timezone

from builders.errors import BuildError, StepFailed, UserError
from ciserver.lib.states import move
from ciserver.pipelines import events
from ciserver.pipelines.leases import LeaseLost
from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import JOB_MOVES, Job, State
from ciserver.pipelines.runner.commit_files import PlanError
from ciserver.pipelines.runner.workshop import Workshop
from runtime.errors import SandboxError
from runtime.spec import IdRange, Parent

log = logging.getLogger(__name__)


class JobFailed(Exception):
    """A job did not pass. The sentence, its place and the next step are for the page."""

    def __init__(
        self,
        reason: str,
        *,
        place: str = "",
        hint: str = "",
        excerpt: str = "",
        state: State = State.FAILED,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place
        self.hint = hint
        self.excerpt = excerpt  # the line of the Dockerfile, a caret under it
        self.state = state


@dataclass(frozen=True, slots=True)
class JobRun:
    """A job that is being worked on, with all that its work needs."""

    job: Job
    workshop: Workshop
    log: LogWriter
    cancel: Event

    @property
    def cgroup(self) -> Parent:
        """All sandboxes of a pipeline share one parent and its budget."""
        # Numbers begin anew in each installation, of which a machine may have more than one.
        home = hashlib.sha256(str(self.workshop.config.home).encode()).hexdigest()[:8]
        return Parent(f"pipeline-{home}-{self.job.pipeline_id}", self.workshop.budget())

    @property
    def ids(self) -> IdRange:
        return IdRange(self.job.pipeline.project.id_base)


@contextmanager
def working_on(job: Job, workshop: Workshop, cancel: Event) -> Iterator[JobRun]:
    """Run the block as ``job``. Whatever goes wrong in it becomes the job's end and JobFailed."""
    move(job, State.RUNNING, table=JOB_MOVES, started_at=timezone.now())
    events.publish(job.pipeline_id)
    with LogWriter(job.log_path) as writer:
        try:
            yield JobRun(job, workshop, writer, cancel)
            if cancel.is_set():
                raise JobFailed("Cancelled.", state=State.CANCELLED)
        except LeaseLost:
            raise
        except Exception as error:
            end = _explained(error, cancel)
            end.reason, end.hint, end.excerpt = map(
                writer.masker.mask_text, (end.reason, end.hint, end.excerpt)
            )
            writer.say(f"{end.place}: {end.reason}" if end.place else end.reason)
            if end.excerpt:
                writer.say(end.excerpt)
            if end.hint:
                writer.say(end.hint)
            told = {"place": end.place, "hint": end.hint, "excerpt": end.excerpt}
            _finish(job, end.state, reason=end.reason, **told)
            raise end from error
    _finish(job, State.PASSED)


def _finish(job: Job, state: State, **fields: Any) -> None:
    with transaction.atomic():  # one, and not two that may each wait for other writers
        # A step that an error of ours ended has had nobody to close it.
        job.steps.filter(state=State.RUNNING).update(state=State.FAILED)
        move(job, state, table=JOB_MOVES, finished_at=timezone.now(), **fields)
    events.publish(job.pipeline_id)


def _explained(error: Exception, cancel: Event) -> JobFailed:
    if cancel.is_set():
        return JobFailed("Cancelled.", state=State.CANCELLED)
    match error:
        case JobFailed():
            return error
        case PlanError() | UserError():
            hint = error.hint
            if isinstance(error, StepFailed) and not hint:
                hint = "The step's last lines are in the log."
            place, excerpt = error.place, ""
            if isinstance(error, UserError):
                place, excerpt = error.where, error.excerpt
            return JobFailed(error.message, place=place, hint=hint, excerpt=excerpt)
        case BuildError() | SandboxError():
            log.error("%s: %s", error.code, error)
            return JobFailed(
                f"Gantry could not do this: {error.message}",
                place=error.where if isinstance(error, BuildError) else "",
                hint=error.hint,
            )
    log.exception("a job ended by an error of ours", exc_info=error)
    return JobFailed(
        f"Gantry failed ({type(error).__name__}: {error}).",
        hint="This is a fault of the service, not of the commit: see the worker's log.",
    )
