"""Where a deployment goes, and leaving the hosts that are an environment's no longer.

A move, and a change of an environment's hosts, end with this: once all of its hosts serve, the
others are taken out of service one by one. One that does not answer then is left by ``restoring``
as soon as it does.
"""

from __future__ import annotations

import logging

from django.db import transaction

from ciserver.releases import domains
from ciserver.releases.hosts import opened
from ciserver.releases.leases import Lease
from ciserver.releases.models import (
    Deployment,
    DeploymentKind,
    DeploymentState,
    Environment,
    Host,
    Running,
)
from ciserver.releases.naming import labels_of, server_name
from ciserver.releases.steps import Recorder
from ciserver.releases.targets import Target
from ciserver.releases.targets.base import DRAIN, GRACE
from ciserver.releases.targets.errors import TargetError

log = logging.getLogger(__name__)


def hosts_of(deployment: Deployment) -> list[Host]:
    """Those that it goes to, in their order."""
    if deployment.kind != DeploymentKind.MOVE:
        return list(deployment.environment.hosts.all())
    return [deployment.to_host] if deployment.to_host else []


@transaction.atomic
def put_in_place(deployment: Deployment, lease: Lease) -> None:
    """Of a move: from now on the new host is the environment's, and the old one is not. May be
    called again. Raises LeaseLost."""
    if deployment.kind != DeploymentKind.MOVE:
        return
    environment = Environment.objects.select_for_update().get(pk=deployment.environment_id)
    lease.check()
    if deployment.from_host:
        environment.hosts.remove(deployment.from_host)
    if deployment.to_host:
        environment.hosts.add(deployment.to_host)


def leave_others(deployment: Deployment, lease: Lease) -> str:
    """After a success everywhere: leave whatever else runs the environment. Why that could not be
    done, or nothing: what was wanted serves all the same. Raises LeaseLost."""
    environment = deployment.environment
    kept = environment.hosts.values("pk")
    rows = environment.running.exclude(host__in=kept).select_related("host")
    said = [_leave_one(deployment, row, lease) for row in rows]
    return " ".join(filter(None, said))


def _leave_one(deployment: Deployment, row: Running, lease: Lease) -> str:
    row.environment = deployment.environment
    try:
        with (
            Recorder(deployment, row.host, lease).step("leave") as note,
            opened(row.host) as target,
        ):
            note.text = ", ".join(leave(target, row, lease)) or "nothing was left"
    except TargetError as error:
        return (
            f"{row.host} could not be left: {str(error).rstrip('. ')}. What runs there goes as soon"
            " as it answers."
        )
    return ""


def left_behind(host: Host) -> list[Running]:
    """What serves on ``host`` for environments that are there no longer, each with a success on
    all the hosts that it has instead."""
    rows = host.running.exclude(environment__hosts=host).select_related("environment__project")
    return [row for row in rows if _is_elsewhere(row.environment)]


def _is_elsewhere(environment: Environment) -> bool:
    ended = environment.deployments.filter(state=DeploymentState.SUCCEEDED).order_by("-pk")
    last = ended.values_list("configuration", flat=True).first() or {}
    there = set(environment.hosts.values_list("name", flat=True))
    return bool(there) and set(last.get("hosts", ())) == there


def leave(target: Target, row: Running, lease: Lease) -> list[str]:
    """Take an environment from the host of ``row``: its traffic, once what is under way has
    ended, its containers, and ``row``. May be called again. The names of its containers."""
    there = clear(target, row.environment, lease)
    _forget(row, lease)
    return there


def clear(target: Target, environment: Environment, lease: Lease) -> list[str]:
    """Take an environment's domains and traffic from a host, once what is under way has ended, and
    its containers. May be called again. The names of these. Raises TargetError, also when a domain
    stays there: nobody would look for it again."""
    name = server_name(environment)
    target.proxy.name(name, None, edge=domains.edge(), permit=lease.check)
    target.proxy.close(name, seconds=DRAIN, permit=lease.check)
    there = target.containers(labels_of(environment))
    for container in there:
        lease.check()
        target.remove(container, grace=GRACE)
    return [container.name for container in there]


@transaction.atomic
def _forget(row: Running, lease: Lease) -> None:
    """Under the lock that the next claim takes."""
    Environment.objects.select_for_update().get(pk=row.environment_id)
    lease.check()
    Running.objects.filter(pk=row.pk).delete()
