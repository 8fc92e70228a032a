"""Containers of ours on a host that are of no environment there: from a time before the host was
removed, as one can be that does not answer, and added again.

They are told of, and go when an administrator has the host prepared. Not by themselves: after a
database was restored from an earlier day they may be what serves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db.models import Q

from ciserver.accounts.models import AuditEntry
from ciserver.releases import domains, leases
from ciserver.releases.hosts import LOCAL
from ciserver.releases.models import UNFINISHED, Environment, Host
from ciserver.releases.naming import installation, network_of, server_name_of
from ciserver.releases.policy import GANTRY
from ciserver.releases.targets import Target
from ciserver.releases.targets.base import DRAIN, GRACE
from ciserver.releases.targets.proxy import Permit, granted
from ciserver.releases.targets.spec import Container


def found(target: Target, host: Host) -> list[Container]:
    """Those on ``host``. They are listed first: what has started one is known by then."""
    there = target.containers({"installation": installation()})
    coming = Q(deployments__to_host=host, deployments__state__in=UNFINISHED)
    known = Environment.objects.filter(Q(hosts=host) | Q(running__host=host) | coming)
    networks = {network_of(pk) for pk in known.values_list("pk", flat=True)}
    return [one for one in there if one.labels.get("network", "") not in networks | {""}]


def warnings(target: Target, host: Host) -> list[str]:
    """What to tell of them, and how to be rid of them."""
    names = [one.name for one in found(target, host)]
    if not names:
        return []
    remedy = f"{target.engine.program} rm --force {' '.join(names)}"
    if host.kind != LOCAL:
        remedy = f"gantry hosts prepare {host}"
    return [f"No environment here knows of {', '.join(names)}. To take that away: {remedy}."]


def clear(target: Target, host: Host) -> None:
    """Away with them, and with the traffic that is sent to them. Raises TargetError."""
    gone = []
    for container in found(target, host):
        with _alone(container) as permit:
            if permit and container.id in {one.id for one in found(target, host)}:
                _close(target, container, permit)
                target.remove(container, grace=GRACE)
                gone.append(container.name)
    if gone:
        AuditEntry.record(actor=GANTRY, action="host.clear", target=host.name, containers=gone)


@contextmanager
def _alone(container: Container) -> Iterator[Permit | None]:
    """A permit, while no deployment begins in the environment that had ``container``, should that
    be there still; None if one is under way."""
    environment = Environment.objects.filter(pk=_environment_of(container)).first()
    if environment is None:
        yield granted
        return
    with leases.tend(environment) as lease:
        yield lease.check if lease else None


def _close(target: Target, container: Container, permit: Permit) -> None:
    """Another installation's Caddy routes may have the same names: those alone that lead there."""
    name = server_name_of(_environment_of(container))
    if container.address and target.proxy.routes().get(name) == container.address:
        target.proxy.name(name, None, edge=domains.edge(), permit=permit)
        target.proxy.close(name, seconds=DRAIN, permit=permit)


def _environment_of(container: Container) -> int:
    last = container.labels["network"].rpartition("-")[2]
    return int(last) if last.isdecimal() else 0
