"""A deployment: to its hosts in batches (see ``one_host``), and what is said of it at its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from django.conf import settings

from ciserver.accounts import registry_tokens
from ciserver.releases import leases, leaving, rolling
from ciserver.releases.health import Unhealthy
from ciserver.releases.hosts import clock_problem
from ciserver.releases.leases import Cancelled, Lease, LeaseLost, recover_deployments
from ciserver.releases.models import Deployment, DeploymentState, Environment, Host, Release
from ciserver.releases.one_host import HostDeployment, Mismatch, connected
from ciserver.releases.sealed import masked
from ciserver.releases.steps import Recorder
from ciserver.releases.targets import images
from ciserver.releases.targets.errors import TargetError
from ciserver.releases.targets.images import Location
from ciserver.releases.targets.spec import ImageFacts

__all__ = ["deploy", "recover_deployments"]

log = logging.getLogger(__name__)
MEND_IT = "Mend that and push again, or change the check on the environment's page"


def deploy(deployment_id: int) -> None:
    """Do a queued deployment, if it is there to be taken. Never raises for what can go wrong on
    a host: the row tells."""
    deployment = leases.claim(deployment_id)
    if deployment is None:
        return
    leases.tell(deployment)
    with Lease(deployment) as lease:
        try:
            _to_every_host(deployment, lease)
        except LeaseLost:
            log.warning("deployment %s was taken over by another worker", deployment_id)
        except Cancelled as asked:
            _end(deployment, DeploymentState.CANCELLED, str(asked))
        except (TargetError, HostsFailed) as error:
            _end(deployment, DeploymentState.FAILED, str(error))
        except Exception as error:
            log.exception("deployment %s failed", deployment_id)
            words = f"An error of Gantry's own ({type(error).__name__}: {error})."
            reason = f"{words} See the worker's log, then deploy again"
            _end(deployment, DeploymentState.FAILED, reason)


class HostsFailed(Exception):
    """Some hosts did not take it. The message says which, and why."""


def _to_every_host(deployment: Deployment, lease: Lease) -> None:
    location = Location.parse(deployment.release.repository)
    environment = deployment.environment
    hosts = leaving.hosts_of(deployment)
    if not hosts:
        raise TargetError(f"{environment.name} has no host. Attach one, then deploy again.")
    image = _facts_of(deployment.release, location)
    failed: dict[Host, str] = {}
    for batch in rolling.batches(hosts, environment.batch_size):
        lease.check_wanted()
        said = rolling.side_by_side(
            batch, lambda host: _to_host(deployment, lease, host, location, image)
        )
        failed |= {host: words for host, words in zip(batch, said, strict=True) if words}
        if failed and environment.stop_on_failure:
            break
    if failed:
        raise HostsFailed(_words_of(failed, among=len(hosts)))
    leaving.put_in_place(deployment, lease)
    left = leaving.leave_others(deployment, lease)
    leases.finish(deployment, DeploymentState.SUCCEEDED, reason=left)


def _to_host(
    deployment: Deployment, lease: Lease, host: Host, location: Location, image: ImageFacts
) -> str:
    """Why it failed on ``host``; empty if it did not. Raises LeaseLost and Cancelled."""
    late = ""
    try:
        record = Recorder(deployment, host, lease)
        with connected(record, host) as target:
            late = clock_problem(target)
            HostDeployment(
                deployment=deployment,
                location=location,
                image=image,
                host=host,
                target=target,
                lease=lease,
            ).run(record)
    except Unhealthy as error:
        reason = f"{str(error).rstrip('. ')}. {MEND_IT}"
    except (TargetError, Mismatch) as error:
        reason = str(error)
    else:
        return ""
    # It may be why: certificates and what an image does are judged by it.
    return f"{reason.rstrip('. ')}. And {late}" if late else reason


def _words_of(failed: Mapping[Host, str], *, among: int) -> str:
    if among == 1:
        return "".join(failed.values())
    return "; ".join(f"{host}: {words.rstrip('. ')}" for host, words in failed.items())


def _facts_of(release: Release, location: Location) -> ImageFacts:
    """Read from the registry once: a roll-back to an image that the host still has needs none."""
    if release.image:
        return ImageFacts.from_json(release.image)
    image = images.read_facts(location, release.digest, token=_pull_token(location))
    release.image = image.as_json()
    release.save(update_fields=["image"])
    return image


def _pull_token(location: Location) -> str | None:
    if location.registry != settings.GANTRY.registry:
        return None
    access = registry_tokens.Access(location.name, ("pull",))
    return registry_tokens.issue(registry_tokens.PULL_USER, [access])


def _end(deployment: Deployment, state: DeploymentState, reason: str) -> None:
    """The last sentence of ``reason`` says what serves now."""
    reason = masked(deployment, reason)
    after = _serving_words(deployment.environment)
    try:
        leases.finish(deployment, state, reason=f"{reason.rstrip('. ')}; {after}.")
    except LeaseLost:
        log.warning("deployment %s was taken over by another worker", deployment.pk)


def _serving_words(environment: Environment) -> str:
    """What serves, as the records of the hosts say."""
    on: dict[str, list[str]] = {}
    rows = environment.running.select_related("release", "host").order_by("host__name")
    for row in rows:
        on.setdefault(row.release.name, []).append(row.host.name)
    empty = environment.hosts.exclude(running__environment=environment)
    if not on:
        return f"nothing serves {environment.name}"
    if len(on) == 1 and not empty.exists():
        return f"{next(iter(on))} still serves {environment.name}"
    if empty.exists():
        on["nothing"] = [host.name for host in empty]
    parts = ", ".join(f"{name} on {' and '.join(hosts)}" for name, hosts in on.items())
    return f"{environment.name} is served by {parts}: deploy again, or roll back"
