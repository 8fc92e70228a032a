"""Makes a host serve what its rows say, without deploying anything."""

from __future__ import annotations

import logging

from django.db.models import Q

from ciserver.releases import domains, leases, leaving, rolling
from ciserver.releases.hosts import opened
from ciserver.releases.leases import Lease, LeaseLost
from ciserver.releases.models import Environment, Host, Running
from ciserver.releases.naming import labels_of, server_name
from ciserver.releases.targets import Target
from ciserver.releases.targets.base import DRAIN, GRACE
from ciserver.releases.targets.commands import QUICK
from ciserver.releases.targets.errors import TargetError, TrafficError

log = logging.getLogger(__name__)


def restore_routes() -> None:
    """Make every host serve what its row says: after a restart of the proxy, of the engine or of
    the machine. Removes containers that no row and no deployment under way accounts for."""
    used = Host.objects.filter(Q(environments__isnull=False) | Q(running__isnull=False))
    rolling.side_by_side(list(used.distinct()), _restore_host)


def restore_environment(environment_id: int) -> None:
    """The same on the hosts of one environment, of which something was changed just now."""
    rolling.side_by_side(list(Host.objects.filter(environments=environment_id)), _restore_host)


def _restore_host(host: Host) -> None:
    try:
        with opened(host) as target:
            target.guard()
            standing = host.environments.filter(removed_at=None)
            for environment in standing.select_related("project"):
                try:
                    if not _is_right(target, environment, host):
                        _restore(target, environment, host)
                except TrafficError as error:  # a port that is taken there, say: drift tells
                    log.warning("%s is not restored on %s: %s", environment, host, error)
            for row in leaving.left_behind(host):
                with leases.tend(row.environment) as lease:
                    if lease:
                        leaving.leave(target, row, lease)
    except LeaseLost:
        log.warning("the routes of %s are being restored by another worker", host)
    except TargetError as error:
        log.warning("the routes of %s could not be restored: %s", host, error)


def _is_right(target: Target, environment: Environment, host: Host) -> bool:
    """A look without a lease, so that the many times when all is well hold up nobody."""
    serving = Running.objects.filter(environment=environment, host=host).first()
    upstream, port = target.proxy.served().get(server_name(environment), ("", 0))
    there = target.containers(labels_of(environment))
    if serving is None:
        return not there and not upstream  # a name that leads nowhere harms nobody
    if [container.id for container in there] != [serving.container_id]:
        return False
    if serving.stopped_by:
        return not there[0].running
    named = target.proxy.domains().get(server_name(environment))
    return (
        named == domains.wanted(environment, serving)
        and there[0].running
        and serving.healthy
        and there[0].address == upstream
        and (not upstream or port == environment.port)
    )


def _restore(target: Target, environment: Environment, host: Host) -> None:
    """Under a lease that keeps deployments from beginning, so that neither undoes the other."""
    with leases.tend(environment) as lease:
        if lease is None:
            return
        serving = Running.objects.filter(environment=environment, host=host).first()
        if environment.port:
            target.proxy.readdress(
                server_name(environment),
                port=environment.port,
                edge=domains.edge(),
                permit=lease.check,
            )
        healthy = route(target, environment, serving, lease)
        domains.serve(target, environment, serving, lease)
        if serving:
            recorded = Running.objects.filter(pk=serving.pk, container_id=serving.container_id)
            recorded.exclude(healthy=healthy).update(healthy=healthy)
        kept = serving.container_id if serving else ""
        others = [c for c in target.containers(labels_of(environment)) if c.id != kept]
        if others and healthy:
            # A worker may have died between the switch and the last requests under way.
            target.proxy.drain(server_name(environment), seconds=DRAIN, permit=lease.check)
        for container in others:
            lease.check()
            target.remove(container, grace=0)  # no traffic goes there


def route(target: Target, environment: Environment, serving: Running | None, lease: Lease) -> bool:
    """Send traffic to the container of ``serving``, started again if need be; False if it is
    gone, or somebody wants it to be stopped."""
    if serving is None:
        target.proxy.forget(server_name(environment), permit=lease.check)
        return False
    known = {c.id: c for c in target.containers(labels_of(environment))}
    container = known.get(serving.container_id)
    if container is None:
        return False
    if serving.stopped_by:
        if container.running:  # somebody, or a reboot, has started it
            lease.check()
            target.machine.run(target.engine.stop(container.id, GRACE), timeout=GRACE + QUICK)
        return False
    if not container.running:
        lease.check()
        container = target.resume(container)
    if container.address and environment.port:
        target.proxy.serve(
            server_name(environment),
            port=environment.port,
            upstream=container.address,
            permit=lease.check,
        )
    return container.running
