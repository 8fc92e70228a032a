"""Who works on a pipeline: an atomic lease with a fencing token, and what to do when it ends.

A worker that was stopped for longer than its lease may wake up and go on; whatever it then
writes carries an old fence and changes nothing. A worker that is asked to stop hands its lease
back at once.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.utils import timezone

from ciserver.lib import outbox
from ciserver.lib.leasing import Watch, ends, lost
from ciserver.lib.states import IllegalMove, move
from ciserver.pipelines import drain, events, turns
from ciserver.pipelines.groups import must_wait, wake_group
from ciserver.pipelines.models import (
    HEARTBEAT,
    LEASE,
    MAX_ATTEMPTS,
    PIPELINE_MOVES,
    Pipeline,
    State,
    Step,
)
from ciserver.projects.models import Project

log = logging.getLogger(__name__)
TOPIC = "pipeline.queued"
RACES = 20


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on ``pipeline_id``, valid while the row's fence is ``fence``."""

    pipeline_id: int
    fence: int


def claim_next() -> Lease | None:
    """Take the pipeline whose turn it is, or None when none may begin now."""
    for _ in range(RACES):  # others claim too: what they were faster with is looked for again
        turn = turns.next_ones()
        if not turn:
            break
        for pipeline_id in turn:
            if lease := claim(pipeline_id):
                return lease
    return None


def claim(pipeline_id: int) -> Lease | None:
    """Take a queued pipeline, or None when it is not there to be taken.

    One whose project has as many at once as it may stays queued, and promised.
    """
    with transaction.atomic():
        # The project's row is the lock under which its running pipelines are counted.
        of = Pipeline.objects.filter(pk=pipeline_id).values("project")
        project = Project.objects.select_for_update().filter(pk__in=of).first()
        queued = Pipeline.objects.filter(pk=pipeline_id, state=State.QUEUED)
        if project is None or not queued.exists():
            outbox.keep(TOPIC, pipeline_id)
            return None
        if not turns.has_room(project) or must_wait(pipeline_id):
            return None  # the promise stands; whoever it waits for wakes it, else the sweeper
        now = timezone.now()
        taken = Pipeline.objects.filter(pk=pipeline_id, state=State.QUEUED).update(
            state=State.RUNNING,
            worker=f"{socket.gethostname()}/{os.getpid()}",
            fence=F("fence") + 1,
            attempt=F("attempt") + 1,
            started_at=now,
            lease_until=ends(LEASE),
            reason="",
        )
        Project.objects.filter(pk=project.pk).update(served_at=now)
        outbox.keep(TOPIC, pipeline_id)
        # Read before anybody else can claim it: a fence read later may be the next owner's.
        fence = Pipeline.objects.values_list("fence", flat=True).filter(pk=pipeline_id).first()
    if not taken or fence is None:
        return None
    events.publish(pipeline_id)
    return Lease(pipeline_id, fence)


class LeaseLost(Exception):
    """Another worker has the pipeline: whatever this one still does must change nothing."""


@contextmanager
def held(lease: Lease) -> Iterator[None]:
    """A transaction in which the lease cannot be taken over. Raises LeaseLost when it was."""
    with transaction.atomic():
        row = Pipeline.objects.select_for_update().filter(
            pk=lease.pipeline_id, fence=lease.fence, state=State.RUNNING
        )
        if not row.exists():
            raise LeaseLost(f"pipeline {lease.pipeline_id} was taken from this worker")
        yield


class Heartbeat:
    """Renews a lease from a thread; sets ``cancel`` when the work must end: when the lease is
    lost, somebody cancels, or the worker is asked to stop.

    ``cancelled_by`` then names the person, or is empty; ``draining`` tells the last case.
    """

    def __init__(self, lease: Lease) -> None:
        self.cancel = threading.Event()
        self.cancelled_by = ""
        self.draining = False
        self._lease = lease
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        try:
            # Cancelling must be felt within two seconds, so the row is read more often
            # than the lease is renewed.
            ticks = 0
            while not self._stop.wait(1.0):
                ticks += 1
                if drain.asked() and not self.cancel.is_set():
                    self.draining = True
                    self.cancel.set()
                try:
                    self._look()
                    if ticks % int(HEARTBEAT.total_seconds()) == 0:
                        self._renew()
                except DatabaseError as error:
                    # Away for a moment, or for longer than the lease: then the fence decides.
                    log.warning("pipeline %s: %s", self._lease.pipeline_id, error)
                    connection.close()
        finally:
            connection.close()

    def _look(self) -> None:
        row = Pipeline.objects.filter(pk=self._lease.pipeline_id, fence=self._lease.fence)
        by = row.values_list("cancel_requested_by", flat=True).first()
        if by is None or by:
            self.cancelled_by = by or ""
            self.draining = False
            self.cancel.set()

    def _renew(self) -> None:
        Pipeline.objects.filter(pk=self._lease.pipeline_id, fence=self._lease.fence).update(
            lease_until=ends(LEASE)
        )


@transaction.atomic
def hand_back(pipeline: Pipeline, lease: Lease) -> None:
    """Put a pipeline back into the queue, as its worker is asked to stop. It counts as no attempt.

    Raises IllegalMove when the lease was lost.
    """
    move(
        pipeline,
        State.QUEUED,
        table=PIPELINE_MOVES,
        guard={"fence": lease.fence},
        fence=lease.fence + 1,
        attempt=pipeline.attempt - 1,
        lease_until=None,
        reason="Handed back: its worker was asked to stop. It begins again on the next one.",
    )
    outbox.promise(TOPIC, pipeline.pk)
    transaction.on_commit(lambda: events.publish(pipeline.pk))


def recover(watch: Watch | None = None) -> list[int]:
    """Put pipelines whose worker died back into the queue, or fail them after three attempts."""
    recovered = []
    for pipeline in lost(Pipeline.objects.filter(state=State.RUNNING), watch):
        try:
            _recover(pipeline)
        except IllegalMove:
            continue  # its worker was only slow, or another sweeper came first
        recovered.append(pipeline.pk)
        events.publish(pipeline.pk)
    return recovered


@transaction.atomic
def _recover(pipeline: Pipeline) -> None:
    log.warning("the worker %s of pipeline %s is gone", pipeline.worker, pipeline.pk)
    guard = {"fence": pipeline.fence, "lease_until": pipeline.lease_until}
    if pipeline.cancel_requested_by:
        move(
            pipeline,
            State.CANCELLED,
            table=PIPELINE_MOVES,
            guard=guard,
            fence=pipeline.fence + 1,
            finished_at=timezone.now(),
            reason=f"Cancelled by {pipeline.cancel_requested_by}.",
        )
    elif pipeline.attempt >= MAX_ATTEMPTS:
        move(
            pipeline,
            State.FAILED,
            table=PIPELINE_MOVES,
            guard=guard,
            fence=pipeline.fence + 1,
            finished_at=timezone.now(),
            reason=f"Its worker died in each of {pipeline.attempt} attempts."
            " See the worker's log, then push again.",
        )
    else:
        move(pipeline, State.QUEUED, table=PIPELINE_MOVES, guard=guard, fence=pipeline.fence + 1)
        outbox.promise(TOPIC, pipeline.pk)
        return
    unfinished = pipeline.jobs.filter(state__in=[State.QUEUED, State.RUNNING])
    Step.objects.filter(job__in=unfinished, state=State.RUNNING).update(state=State.CANCELLED)
    unfinished.update(state=State.CANCELLED, finished_at=timezone.now())
    wake_group(pipeline)
