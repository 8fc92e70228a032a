"""Who works on an environment: one deployment at a time, or one worker that restores it.

Each holds an atomic lease with a fencing token on a row of its own: the deployment's, or the
environment's. A worker that was stopped for longer than its lease may wake up and go on; every
step it then begins, and the switch of traffic itself, asks for the fence first and is refused.

A lease is held while engines and proxies are spoken to, a transaction never is: on SQLite it
would keep everybody else from writing.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from ciserver.lib import outbox
from ciserver.lib.leasing import Watch, ends, lost
from ciserver.lib.states import IllegalMove, move
from ciserver.pipelines.models import HEARTBEAT, LEASE, MAX_ATTEMPTS
from ciserver.releases import policy, queue
from ciserver.releases.models import (
    DEPLOYMENT_MOVES,
    Deployment,
    DeploymentKind,
    DeploymentState,
    DeploymentStep,
    Environment,
)
from ciserver.releases.queue import TOPIC, supersede, tell, tell_of

__all__ = [
    "TOPIC", "Cancelled", "Lease", "LeaseLost", "claim", "finish", "recover_deployments",
    "supersede", "tell", "tell_of", "tend",
]  # fmt: skip

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Another worker has taken over; whatever this one still does must change nothing."""


class Cancelled(Exception):
    """Somebody wants what goes on to end. The message says who, and why."""


def claim(deployment_id: int) -> Deployment | None:
    """Take a queued deployment. None when it is not there to be taken, or not yet: then its
    promise stays, and it is tried again when what goes on in the environment ends.
    """
    deployment = Deployment.objects.filter(pk=deployment_id).first()
    if deployment is None or deployment.state != DeploymentState.QUEUED:
        outbox.keep(TOPIC, deployment_id)
        return None
    try:
        with transaction.atomic():
            return _take(deployment)
    except IntegrityError:
        return None  # one_deployment_at_a_time
    except IllegalMove:
        return None  # another worker was first


def _take(deployment: Deployment) -> Deployment | None:
    # The same lock as in _take_to_tend, so that only one of the two begins.
    environment = Environment.objects.select_for_update().get(pk=deployment.environment_id)
    tended = Environment.objects.filter(pk=environment.pk, lease_until__gt=Now())
    if tended.exists():
        return None
    Environment.objects.filter(pk=environment.pk).update(fence=F("fence") + 1, lease_until=None)
    outbox.keep(TOPIC, deployment.pk)
    waiting = Deployment.objects.filter(
        environment=deployment.environment_id, state=DeploymentState.QUEUED
    )
    # A move gives way to whatever brings another release, also to one that was asked for before.
    newest = waiting.exclude(kind=DeploymentKind.MOVE).order_by("-pk").first()
    if newest and newest.pk != deployment.pk:
        supersede(deployment, by=newest)
        return None
    # What it reads of its environment from here on is what was approved, whoever changes it now.
    deployment.environment = environment
    if waits := policy.blockers(deployment):
        queue.hold(deployment, waits)
        return None
    configuration = policy.configuration_for(deployment.release, environment, deployment.kind)
    for key in policy.RESTORED:
        setattr(environment, key, configuration[key])  # for this worker; it is never saved
    if deployment.kind == DeploymentKind.MOVE:
        configuration["hosts"] = policy.hosts_after(deployment)
    move(
        deployment,
        DeploymentState.RUNNING,
        table=DEPLOYMENT_MOVES,
        guard={"fence": deployment.fence},
        worker=f"{socket.gethostname()}/{os.getpid()}",
        fence=F("fence") + 1,
        attempt=F("attempt") + 1,
        configuration=configuration,
        reason=deployment.reason if deployment.cancelled_by else "",
        started_at=deployment.started_at or timezone.now(),
        lease_until=ends(LEASE),
    )
    deployment.environment = environment  # the move read the row again
    _close_steps(deployment, "The worker died here.")
    return deployment


@contextmanager
def tend(environment: Environment) -> Iterator[Lease | None]:
    """For the block no deployment begins in ``environment``. None if one is under way already,
    or another worker tends it."""
    tended = _take_to_tend(environment)
    if tended is None:
        yield None
        return
    try:
        with Lease(tended) as lease:
            yield lease
    finally:
        _end_tending(tended)


@transaction.atomic
def _take_to_tend(environment: Environment) -> Environment | None:
    row = Environment.objects.select_for_update().get(pk=environment.pk)
    if row.deployments.filter(state=DeploymentState.RUNNING).exists():
        return None
    free = Environment.objects.filter(Q(lease_until=None) | Q(lease_until__lt=Now()), pk=row.pk)
    if free.update(fence=F("fence") + 1, lease_until=ends(LEASE)) != 1:
        return None
    row.refresh_from_db()
    return row


@transaction.atomic
def _end_tending(tended: Environment) -> None:
    """A deployment that was asked for meanwhile is woken now."""
    mine = Environment.objects.filter(pk=tended.pk, fence=tended.fence)
    if mine.update(lease_until=None) == 1:
        _wake_next(tended)


class Lease:
    """Renews the lease of a row that was taken, from a thread. ``check`` tells whether it still
    holds."""

    def __init__(self, row: Deployment | Environment) -> None:
        self._held: QuerySet[Any] = type(row)._default_manager.filter(
            pk=row.pk, fence=row.fence, lease_until__isnull=False
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Lease:
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

    def check(self) -> None:
        """Raise LeaseLost unless the row still carries our fence. Inside a transaction that also
        writes, nobody can take over before it ends."""
        if not self._held.all().exists():
            raise LeaseLost

    def check_wanted(self) -> None:
        """``check``, and raise Cancelled if somebody cancelled the deployment. For what comes
        before traffic is switched: from then on there is nothing to withdraw."""
        asked = self._held.values_list("cancelled_by", "reason").first()
        if asked is None:
            raise LeaseLost
        if asked[0]:
            raise Cancelled(asked[1].rstrip("."))

    def renew(self) -> bool:
        return self._held.all().update(lease_until=ends(LEASE)) == 1

    def _beat(self) -> None:
        try:
            while not self._stop.wait(HEARTBEAT.total_seconds()):
                try:
                    if not self.renew():
                        return
                except Exception:
                    # A database away for less than the lease is no reason to stop renewing.
                    log.exception("a lease could not be renewed")
                    connection.close()
        finally:
            connection.close()


def finish(deployment: Deployment, state: DeploymentState, *, reason: str = "") -> None:
    """End a running deployment and wake the next one of its environment. Raises LeaseLost."""
    with transaction.atomic():
        by = Deployment.objects.values_list("cancelled_by", flat=True).get(pk=deployment.pk)
        if by and state == DeploymentState.SUCCEEDED:
            reason = f"{by} cancelled it when it served already. {reason}".rstrip()
        try:
            move(
                deployment,
                state,
                table=DEPLOYMENT_MOVES,
                guard={"fence": deployment.fence},
                reason=reason,
                finished_at=timezone.now(),
                lease_until=None,
            )
        except IllegalMove:
            raise LeaseLost from None
        if state == DeploymentState.SUCCEEDED:
            queue.follow(deployment)
        _wake_next(deployment.environment)
    tell(deployment)


def recover_deployments(watch: Watch | None = None) -> list[int]:
    """Put deployments whose worker died back into the queue, or fail them after three attempts."""
    running = Deployment.objects.filter(state=DeploymentState.RUNNING)
    recovered = []
    for deployment in lost(running.select_related("release__pipeline", "environment"), watch):
        try:
            _recover(deployment)
        except IllegalMove:
            continue  # its worker was only slow, or another sweeper came first
        recovered.append(deployment.pk)
        tell(deployment)
    return recovered


@transaction.atomic
def _recover(deployment: Deployment) -> None:
    log.warning("the worker %s of deployment %s is gone", deployment.worker, deployment.pk)
    guard = {"fence": deployment.fence, "lease_until": deployment.lease_until}
    fence = deployment.fence + 1
    if deployment.attempt < MAX_ATTEMPTS and not deployment.cancelled_by:
        move(deployment, DeploymentState.QUEUED, table=DEPLOYMENT_MOVES, guard=guard, fence=fence)
        outbox.promise(TOPIC, deployment.pk)
        return
    state = DeploymentState.FAILED
    reason = (
        f"Its worker died in each of {deployment.attempt} attempts."
        " See the worker's log, then deploy again."
    )
    if deployment.cancelled_by:
        state = DeploymentState.CANCELLED
        reason = f"{deployment.reason.rstrip('.')}; its worker died meanwhile."
    move(
        deployment,
        state,
        table=DEPLOYMENT_MOVES,
        guard=guard,
        fence=fence,
        finished_at=timezone.now(),
        reason=reason,
    )
    _close_steps(deployment, "The worker died here.")
    _wake_next(deployment.environment)


def _close_steps(deployment: Deployment, detail: str) -> None:
    DeploymentStep.objects.filter(deployment=deployment, state=DeploymentState.RUNNING).update(
        state=DeploymentState.FAILED, detail=detail, finished_at=timezone.now()
    )


def _wake_next(environment: Environment) -> None:
    waiting = environment.deployments.filter(state=DeploymentState.QUEUED)
    if following := waiting.order_by("-pk").first():
        outbox.promise(TOPIC, following.pk)
