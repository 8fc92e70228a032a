"""Asking for another host in place of one of an environment's.

A move is a deployment to one host, under the same lease and with the same steps: the new host
serves before the old one is left (see ``leaving``).
"""

from __future__ import annotations

from typing import Any

from django.db import transaction

from ciserver.accounts.models import AuditEntry
from ciserver.lib import outbox
from ciserver.lib.problems import Refused
from ciserver.projects.models import Role
from ciserver.projects.services import require
from ciserver.releases import policy, services
from ciserver.releases.daytwo import asking
from ciserver.releases.models import (
    Deployment,
    DeploymentKind,
    DeploymentState,
    Environment,
    Host,
    Running,
)
from ciserver.releases.queue import TOPIC, tell


@transaction.atomic
def move(*, environment: Environment, user: Any, to: str, host: str = "") -> Deployment:
    """Queue a move of what serves ``environment`` on ``host`` (a name; the only one, if it is
    empty) to the host ``to``. Needs the role maintainer, and a host that ``user`` may use.
    Raises Refused."""
    require(user, environment.project, Role.MAINTAINER)
    environment = Environment.objects.select_for_update().get(pk=environment.pk)
    services.require_standing(environment)
    left = asking.host_of(environment, host, "move")
    serving = environment.running.select_related("host", "release").get(host=left)
    there = services.usable_hosts(user=user, names=[to])[0]
    _check(environment, serving, there)
    deployment = Deployment.objects.create(
        environment=environment,
        release=serving.release,
        kind=DeploymentKind.MOVE,
        requested_by=user.get_username(),
        from_host=serving.host,
        to_host=there,
    )
    outbox.promise(TOPIC, deployment.pk)
    AuditEntry.record(
        actor=user.get_username(),
        action="deployment.move",
        target=str(environment),
        release=serving.release.name,
        digest=serving.release.digest,
        **{"from": serving.host.name, "to": there.name},
    )
    transaction.on_commit(lambda: tell(deployment))
    return deployment


def _check(environment: Environment, serving: Running, there: Host) -> None:
    if stop := policy.stopped(environment):
        raise Refused(
            f"The line is stopped by {stop.by}: {stop.reason}",
            code="line.stopped",
            hint="Move it once the line runs again. Whoever stopped it can start it.",
        )
    if environment.hosts.filter(pk=there.pk).exists():
        raise Refused(
            f"{there} is a host of {environment} already.",
            code="move.there",
            hint="Name another. To do with fewer hosts, take one out under 'Change', then deploy"
            " again.",
        )
    if not environment.hosts.filter(pk=serving.host_id).exists():
        raise Refused(
            f"{serving.host} is no host of {environment} any more.",
            code="move.left",
            hint="Deploy its release again: what is left there then goes.",
        )
    if serving.stopped_by:
        raise Refused(
            f"{serving.stopped_by} stopped it on {serving.host}, and a move starts it.",
            code="move.stopped",
            hint=f"Start it first: gantry start {environment} --host {serving.host}",
        )
    begun = (DeploymentState.QUEUED, DeploymentState.RUNNING)
    if other := environment.deployments.filter(state__in=begun).first():
        raise Refused(
            f"{other.release.name} is on its way to {environment}.",
            code="move.busy",
            hint="Ask again when that has ended.",
        )
