"""Drift: what runs on a host is not what was put there. Found by looking, written down, not mended.

``restoring`` mends what can be mended without asking; a person deploys again or rolls back for
the rest. A look asks each host for all of its containers at once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from django.utils import timezone

from ciserver.pipelines import events
from ciserver.releases import domains, naming, preview, rolling
from ciserver.releases.hosts import opened
from ciserver.releases.models import Deployment, DeploymentState, Environment, Host, Running
from ciserver.releases.targets.domains import Domains
from ciserver.releases.targets.errors import TargetError
from ciserver.releases.targets.spec import Container, ImageFacts

log = logging.getLogger(__name__)
LONGEST = 300  # characters


def look() -> int:
    """Look at every host that serves something; how many records changed."""
    hosts = list(Host.objects.filter(running__isnull=False).distinct())
    changed = sum(rolling.side_by_side(hosts, look_at))
    if changed:
        events.publish_matrix()
    return changed


def look_at(host: Host) -> int:
    """Write down the drift of everything that ``host`` serves; how many records changed."""
    rows = host.running.select_related("environment__project", "release__pipeline")
    busy = Deployment.objects.filter(state=DeploymentState.RUNNING)
    rows = rows.exclude(environment__in=busy.values("environment"))
    try:
        with opened(host) as target:
            there = target.checked(target.containers({"installation": naming.installation()}))
            served, named = target.proxy.served(), target.proxy.domains()
            bare = {row.pk: domains.uncertified(target, row.environment) for row in rows}
    except TargetError as error:
        found = {row.pk: f"{host} cannot be looked at: {error}" for row in rows}
    else:
        routes = {name: upstream for name, (upstream, _) in served.items()}
        ports = {name: port for name, (_, port) in served.items()}
        found = {
            row.pk: drift_of(
                row, there, routes, named, facts=_facts(row), ports=ports, bare=bare[row.pk]
            )
            for row in rows
        }
    return _write(list(rows), found)


def drift_of(
    row: Running,
    there: Sequence[Container],
    routes: Mapping[str, str],
    named: Mapping[str, Domains] | None = None,
    *,
    facts: ImageFacts | None = None,
    ports: Mapping[str, int] | None = None,
    bare: Sequence[str] = (),
) -> str:
    """How ``there``, all our containers on its host, differs from ``row``; empty if in nothing.
    Without ``named`` host names are not compared, and without ``ports`` no ports. ``bare`` are
    host names that have no certificate there."""
    environment = row.environment
    mine = [one for one in there if _is_of(one, environment)]
    serving = next((one for one in mine if one.id == row.container_id), None)
    name = naming.server_name(environment)
    route = routes.get(name, "")
    found = []
    if not environment.hosts.filter(pk=row.host_id).exists():
        found.append(
            f"it still runs here, and {row.host} is no longer a host of {environment.name}"
        )
    if serving is None:
        found.append("its container is gone")
    elif row.stopped_by:
        if serving.running:
            found.append(f"it runs, though {row.stopped_by} stopped it")
    elif not serving.running:
        found.append("its container has stopped")
    elif facts is not None and not serving.runs(facts):
        found.append(f"it runs the image {serving.image_id[:19]}, not that of {row.release.name}")
    elif serving.address != route:
        found.append(f"its traffic goes to {route or 'nowhere'}, not to {serving.address}")
    elif route and ports is not None and ports[name] != environment.port:
        found.append(
            f"it answers on port {ports[name]}, not on {environment.port}: see that this one is"
            " free here"
        )
    if named is not None and (lost := _lost(row, named.get(name))):
        found.append(f"it is not served as {', '.join(lost)}: see that its ports are free here")
    elif bare and not row.stopped_by:
        found.append(
            f"no certificate for {', '.join(bare)} yet: see that its DNS leads here and what"
            " caddy.log says"
        )
    if others := [one.name for one in mine if one is not serving]:
        found.append(f"also here: {', '.join(others)}")
    return "; ".join(found)[:LONGEST]


def _lost(row: Running, there: Domains | None) -> list[str]:
    """The host names that its environment has and its host does not answer to."""
    asked = domains.wanted(row.environment, row)
    if asked is None or asked == there:
        return []
    missing = set(asked.names) - set(there.names if there else ())
    return sorted(missing) or list(asked.names)


def _is_of(container: Container, environment: Environment) -> bool:
    wanted = naming.labels_of(environment)
    return all(container.labels.get(key) == value for key, value in wanted.items())


def _facts(row: Running) -> ImageFacts | None:
    """None while the registry is away: then the image is not compared."""
    try:
        return preview.facts(row.release)
    except TargetError:
        return None


def _write(rows: Sequence[Running], found: Mapping[int, str]) -> int:
    """Only to records that still name the container that was looked for."""
    changed = 0
    for row in rows:
        same = Running.objects.filter(pk=row.pk, container_id=row.container_id)
        drift = found[row.pk][:LONGEST]
        changed += same.exclude(drift=drift).update(drift=drift)
    Running.objects.filter(pk__in=found).update(seen_at=timezone.now())
    return changed
