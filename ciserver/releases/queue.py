"""The line before an environment: asked for, waiting, granted, superseded.

Every function runs inside its caller's transaction or makes one, and takes the environment's row
as its lock first. At most one deployment of an environment waits for its policy, and it is the
newest: whatever is asked for later takes its place.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib import outbox
from ciserver.lib.states import IllegalMove, move
from ciserver.pipelines import events
from ciserver.releases import policy
from ciserver.releases.models import (
    DEPLOYMENT_MOVES,
    Deployment,
    DeploymentKind,
    DeploymentState,
    Environment,
    Release,
)
from ciserver.releases.policy import GANTRY

log = logging.getLogger(__name__)
TOPIC = "deployment.queued"
DEPLOYED = "environment.deployed"


@transaction.atomic
def ask(release: Release, environment: Environment, kind: str, actor: str) -> Deployment:
    """A deployment, queued or, if its policy asks for something yet, waiting."""
    environment = Environment.objects.select_for_update().get(pk=environment.pk)
    newest = environment.deployments.first()
    asked = newest is not None and newest.release_id == release.pk and not newest.finished
    if newest and (
        newest.kind == DeploymentKind.MOVE or newest.cancelled_by or policy.lost_asker(newest)
    ):
        asked = False  # that one goes to another host alone, or nowhere any more
    if newest and asked and (newest.kind == kind or kind != DeploymentKind.ROLLBACK):
        return newest  # asked twice is asked once
    # All begin as waiting: a row that only waits takes nothing from one that was granted.
    deployment = Deployment.objects.create(
        environment=environment,
        release=release,
        kind=kind,
        requested_by=actor,
        state=DeploymentState.WAITING,
        expires_at=_expiry(release, policy.demanded(environment, actor), kind),
    )
    _supersede_others(deployment, DeploymentState.WAITING)
    AuditEntry.record(
        actor=actor,
        action=f"deployment.{kind}",
        target=str(environment),
        release=release.name,
        digest=release.digest,
    )
    consider(deployment)
    transaction.on_commit(lambda: tell(deployment))
    return deployment


@transaction.atomic
def consider(deployment: Deployment) -> bool:
    """Queue a waiting deployment if nothing holds it any more; whether it was queued."""
    locked = Environment.objects.select_for_update().get(pk=deployment.environment_id)
    deployment.environment = locked
    if waits := policy.blockers(deployment):
        same = Deployment.objects.filter(pk=deployment.pk, state=DeploymentState.WAITING)
        same.exclude(reason=" ".join(waits)).update(reason=" ".join(waits))
        deployment.refresh_from_db(fields=["reason"])
        return False
    reason = _goes_first(deployment)
    move(deployment, DeploymentState.QUEUED, table=DEPLOYMENT_MOVES, reason=reason)
    _supersede_others(deployment, DeploymentState.WAITING, DeploymentState.QUEUED)
    outbox.promise(TOPIC, deployment.pk)
    transaction.on_commit(lambda: tell(deployment))
    return True


def _goes_first(deployment: Deployment) -> str:
    """What a deployment that is granted has to let end, and how not to wait for it."""
    place = deployment.environment
    running = place.deployments.filter(state=DeploymentState.RUNNING).select_related("release")
    other = running.first()
    if other is None or other.cancelled_by:
        return ""
    return (
        f"{other.release.name} is on its way to {place.name} and ends first. To have this one begin"
        f" now, cancel that one: gantry cancel {place}"
    )


def hold(deployment: Deployment, reasons: list[str]) -> None:
    """Back to waiting: what it was granted for is no longer so."""
    move(deployment, DeploymentState.WAITING, table=DEPLOYMENT_MOVES, reason=" ".join(reasons))
    outbox.keep(TOPIC, deployment.pk)
    transaction.on_commit(lambda: tell(deployment))


def supersede(deployment: Deployment, *, by: Deployment) -> None:
    """Newest wins: ``deployment`` is over before it began."""
    move(
        deployment,
        DeploymentState.SUPERSEDED,
        table=DEPLOYMENT_MOVES,
        finished_at=timezone.now(),
        reason=f"{by.release.name} was asked for {by.environment.name} before this one began.",
    )
    outbox.keep(TOPIC, deployment.pk)


def cancel(deployment: Deployment, reason: str) -> None:
    """End a deployment that has not begun. Raises IllegalMove when it has."""
    move(
        deployment,
        DeploymentState.CANCELLED,
        table=DEPLOYMENT_MOVES,
        guard={"state__in": (DeploymentState.WAITING, DeploymentState.QUEUED)},
        finished_at=timezone.now(),
        reason=reason,
    )
    outbox.keep(TOPIC, deployment.pk)
    transaction.on_commit(lambda: tell(deployment))


def follow(deployment: Deployment) -> None:
    """After a success: images of earlier releases may go, and the next environment gets the
    release too, if it takes them by itself."""
    outbox.promise(DEPLOYED, deployment.environment_id)
    if deployment.kind in policy.UNAPPROVED:
        return
    here = deployment.environment
    chain = Environment.objects.filter(project=here.project_id, position__gt=here.position)
    chain = chain.filter(removed_at=None)
    following = chain.order_by("position").first()
    if following and following.auto and goes_forward(deployment.release, following):
        ask(deployment.release, following, DeploymentKind.AUTO, GANTRY)


def goes_forward(release: Release, environment: Environment) -> bool:
    """Automatic deployments follow the default branch and never go back behind a newer push,
    whichever pipeline ends first."""
    # By the whole ref: a tag may have the name of the branch.
    if release.pipeline.ref != f"refs/heads/{release.project.default_branch}":
        return False
    ahead = environment.deployments.filter(
        kind=DeploymentKind.AUTO, release__pipeline__number__gt=release.pipeline.number
    )
    return not ahead.exists()


def look_at_waiting() -> int:
    """Queue what no longer has to wait and end what waited too long; how many moved. A chore."""
    waiting = Deployment.objects.filter(state=DeploymentState.WAITING)
    moved = 0
    for deployment in waiting.select_related("environment__project", "release__pipeline"):
        try:
            moved += _look_at(deployment)
        except IllegalMove:
            log.info("deployment %s moved meanwhile", deployment.pk)
    return moved


def _look_at(deployment: Deployment) -> bool:
    expires = deployment.expires_at
    if expires and expires < timezone.now():
        with transaction.atomic():
            cancel(deployment, "Nobody approved it in time. Ask for it again.")
            AuditEntry.record(
                actor=GANTRY, action="deployment.expire", target=str(deployment.environment),
                release=deployment.release.name,
            )  # fmt: skip
        return True
    # Most go on waiting for the same: no lock and no write for these.
    if " ".join(policy.blockers(deployment)) == deployment.reason != "":
        return False
    return consider(deployment)


def _expiry(release: Release, environment: Environment, kind: str) -> datetime | None:
    if not environment.approvals or kind == DeploymentKind.ROLLBACK:
        return None
    soak = policy.soak_left(release, environment) or timedelta(0)
    return timezone.now() + soak + timedelta(hours=environment.approval_hours)


def _supersede_others(deployment: Deployment, *states: str) -> None:
    if deployment.kind == DeploymentKind.MOVE:
        return  # it brings nothing new, and takes nothing from who waits
    older = deployment.environment.deployments.filter(state__in=states, pk__lt=deployment.pk)
    for other in older:
        supersede(other, by=deployment)


def tell(deployment: Deployment) -> None:
    """Let open pages know."""
    tell_of(deployment.release)


def tell_of(release: Release) -> None:
    events.publish(release.pipeline_id)
    events.publish_matrix()
