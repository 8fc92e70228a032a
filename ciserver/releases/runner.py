"""The story of a deployment, host by host: pull, start, check, switch, retire.

Each step finds what an attempt before it did, so that the whole can be run again after a crash
at any point. First traffic is switched, then that is recorded, both only by who holds the fence;
until then, and whenever a step fails, the container that served goes on serving. If a worker dies
between the two, the next attempt, or else ``restore_routes``, makes them agree again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from ciserver.accounts import registry_tokens
from ciserver.releases import leases, rolling
from ciserver.releases.health import Gate, Unhealthy
from ciserver.releases.hosts import LOCAL, clock_words, opened
from ciserver.releases.leases import Lease, LeaseLost, recover_deployments
from ciserver.releases.models import (
    Deployment,
    DeploymentState,
    Environment,
    Host,
    Release,
    Running,
)
from ciserver.releases.sealed import masked, secrets_of
from ciserver.releases.steps import Recorder
from ciserver.releases.targets import Target, images
from ciserver.releases.targets.errors import TargetError
from ciserver.releases.targets.images import Location
from ciserver.releases.targets.spec import Container, ImageFacts, Wanted, check_as

if TYPE_CHECKING:
    from ciserver.releases.targets.credentials import Credentials

__all__ = ["deploy", "recover_deployments", "restore_routes"]

log = logging.getLogger(__name__)
DRAIN = 10.0  # seconds for requests under way
GRACE = 10  # seconds between asking a container to stop and killing it
MIB = 1024 * 1024


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
        except (TargetError, HostsFailed) as error:
            _fail(deployment, str(error))
        except Exception as error:
            log.exception("deployment %s failed", deployment_id)
            _fail(deployment, f"An error of Gantry's own ({type(error).__name__}: {error})")


class Mismatch(Exception):
    """What runs is not what was recorded."""


class HostsFailed(Exception):
    """Some hosts did not take it. The message says which, and why."""


def _to_every_host(deployment: Deployment, lease: Lease) -> None:
    location = Location.parse(deployment.release.repository)
    environment = deployment.environment
    hosts = list(environment.hosts.all())
    if not hosts:
        raise TargetError(f"{environment.name} has no host. Attach one, then deploy again.")
    image = _facts_of(deployment.release, location)
    failed: dict[Host, str] = {}
    for batch in rolling.batches(hosts, environment.batch_size):
        lease.check()
        said = rolling.side_by_side(
            batch, lambda host: _to_host(deployment, lease, host, location, image)
        )
        failed |= {host: words for host, words in zip(batch, said, strict=True) if words}
        if failed and environment.stop_on_failure:
            break
    if failed:
        raise HostsFailed(_words_of(failed, among=len(hosts)))
    leases.finish(deployment, DeploymentState.SUCCEEDED)


def _to_host(
    deployment: Deployment, lease: Lease, host: Host, location: Location, image: ImageFacts
) -> str:
    """Why it failed on ``host``; empty if it did not. Raises LeaseLost."""
    try:
        with connected(Recorder(deployment, host, lease), host) as target:
            HostDeployment(
                deployment=deployment,
                location=location,
                image=image,
                host=host,
                target=target,
                lease=lease,
            ).run()
    except (TargetError, Unhealthy, Mismatch) as error:
        return str(error)
    return ""


@contextmanager
def connected(record: Recorder, host: Host) -> Iterator[Target]:
    """The target of ``host``. Reaching another machine is a step that can fail, and is told."""
    with ExitStack() as stack:
        if host.kind == LOCAL:
            yield stack.enter_context(opened(host))
            return
        with record.step("connect") as note:
            target = stack.enter_context(opened(host))
            note.text = f"{target.engine.program} of {target.machine.facts.user}" + (
                f"; {late}" if (late := clock_words(target.machine.facts.clock)) else ""
            )
        yield target


def _words_of(failed: Mapping[Host, str], *, among: int) -> str:
    if among == 1:
        return "".join(failed.values())
    return "; ".join(f"{host}: {words.rstrip('. ')}" for host, words in failed.items())


def _facts_of(release: Release, location: Location) -> ImageFacts:
    """Read from the registry once: a roll-back to an image that the host still has needs none."""
    if release.image:
        return ImageFacts.from_json(release.image)
    image = images.read_facts(location, release.digest, token=_pull_token(location))
    Release.objects.filter(pk=release.pk).update(image=image.as_json())
    return image


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDeployment:
    """One deployment on one host."""

    deployment: Deployment
    location: Location
    image: ImageFacts
    host: Host
    target: Target
    lease: Lease

    def run(self) -> None:
        record = Recorder(self.deployment, self.host, self.lease)
        with ExitStack() as undo:
            with record.step("pull") as note:
                note.text = self._pull()
            with record.step("start") as note:
                undo.callback(self._withdraw)
                container = self._start()
                note.text = f"{container.name} {container.id[:12]}"
            with record.step("check") as note:
                note.text = self._check(container)
            with record.step("switch") as note:
                note.text = self._switch(container)
            undo.pop_all()
        with record.step("retire") as note:
            note.text = self._retire(container)

    def _pull(self) -> str:
        def credentials() -> Credentials | None:
            return _pull_credentials(self.location)

        moved = self.target.pull(self.image, self.location, credentials)
        Deployment.objects.filter(pk=self.deployment.pk).update(
            bytes_pulled=Coalesce(F("bytes_pulled"), 0) + moved
        )
        total = sum(layer.size for layer in self.image.layers)
        return f"{moved:,} of {total:,} bytes of layers were not here yet"

    def _start(self) -> Container:
        container = self.target.start(self.wanted)
        if not container.runs(self.image):
            raise Mismatch(
                f"{self.host} started the image {container.image_id[:19]}, which is not"
                f" {self.image.digest[:19]}, the one that was tested. Look at who changed it there"
            )
        return container

    def _check(self, container: Container) -> str:
        environment = self.environment
        check = check_as(environment.health, environment.health_passes, self.image.check)
        gate = Gate(
            self.target,
            check,
            environment.health_timeout,
            pulse=self.lease.check,
            stable_for=environment.stable_seconds,
            mask=partial(masked, self.deployment),
        )
        gate.wait(container)
        return f"{check.describe()} passed {check.passes} times, then it stayed up"

    def _switch(self, container: Container) -> str:
        proxy, name = self.target.proxy, server_name(self.environment)
        if container.address:
            proxy.serve(name, port=self._port, upstream=container.address, permit=self.lease.check)
        else:
            proxy.forget(name, permit=self.lease.check)
        self._record(container)
        return f"{proxy.listen or '*'}:{self._port}" if container.address else "it has no port"

    @transaction.atomic
    def _record(self, container: Container) -> None:
        """Under the lock that the next claim takes: it sees this row, or this sees its fence."""
        Environment.objects.select_for_update().get(pk=self.environment.pk)
        self.lease.check()
        Running.objects.update_or_create(
            environment=self.environment,
            host=self.host,
            defaults={
                "release": self.deployment.release,
                "container_id": container.id,
                "digest": self.image.digest,
                "healthy": True,
                "since": timezone.now(),
            },
        )

    def _retire(self, container: Container) -> str:
        others = [c for c in self._ours() if c.id != container.id]
        if container.address:
            name = server_name(self.environment)
            self.target.proxy.drain(name, seconds=DRAIN, permit=self.lease.check)
        for other in others:
            self.lease.check()
            self.target.remove(other, grace=GRACE)
        return ", ".join(other.name for other in others) or "nothing to stop"

    def _withdraw(self) -> None:
        """After a failure: traffic to what the record says, and away with the new container."""
        try:
            self.lease.check()
            serving = Running.objects.filter(environment=self.environment, host=self.host).first()
            _route(self.target, self.environment, serving, self.lease)
            new = self.target.find(self.wanted.name)
            if new and (serving is None or serving.container_id != new.id):
                self.target.remove(new, grace=0)  # it never had traffic
        except (TargetError, LeaseLost) as error:
            # The first failure is the one to tell; restore_routes tidies up what is left.
            log.warning("deployment %s left something behind: %s", self.deployment.pk, error)

    @property
    def environment(self) -> Environment:
        return self.deployment.environment

    @property
    def wanted(self) -> Wanted:
        """Its name covers all that makes it what it is: the same again is the same container."""
        environment, release = self.environment, self.deployment.release
        secrets = secrets_of(self.deployment, environment)
        env = {
            "PORT": str(self.image.port or ""),
            **{key: str(value) for key, value in environment.variables.items()},
            "GANTRY_COMMIT": release.commit,
            "GANTRY_RELEASE": release.name,
            "GANTRY_ENVIRONMENT": environment.name,
        }
        content = [
            self.image.digest,
            env,
            environment.memory_mib,
            environment.cpus,
            environment.pids,
            release.project.id_base,
        ]
        # Of secrets what tells values apart: the name must not tell anything about them.
        content += [[row.fingerprint for row in secrets]] if secrets else []
        known = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
        name = f"gantry-{installation()}-{release.project.slug}-{environment.name}-{known}"
        network = f"gantry-{installation()}-{environment.pk}"
        return Wanted(
            name=name,
            reference=f"{self.location.registry}/{self.location.name}@{self.image.digest}",
            port=self.image.port,
            memory=environment.memory_mib * MIB,
            cpus=environment.cpus,
            pids=environment.pids,
            env={key: value for key, value in env.items() if value}
            | {row.name: row.value().reveal() for row in secrets},
            network=network,
            id_base=release.project.id_base,
            labels={
                **labels_of(environment),
                "network": network,
                "release": release.name,
                "deployment": str(self.deployment.pk),
            },
        )

    @property
    def _port(self) -> int:
        if self.environment.port is None:
            raise TargetError(f"{self.environment} has no port. Set one, then deploy again.")
        return self.environment.port

    def _ours(self) -> list[Container]:
        return self.target.containers(labels_of(self.environment))


def _fail(deployment: Deployment, reason: str) -> None:
    """The last sentence of ``reason`` says what serves now."""
    reason = masked(deployment, reason)
    after = _serving_words(deployment.environment)
    try:
        leases.finish(deployment, DeploymentState.FAILED, reason=f"{reason.rstrip('. ')}; {after}.")
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


def restore_routes() -> None:
    """Make every host serve what its row says: after a restart of the proxy, of the engine or of
    the machine. Removes containers that no row and no deployment under way accounts for."""
    used = Host.objects.filter(Q(environments__isnull=False) | Q(running__isnull=False))
    rolling.side_by_side(list(used.distinct()), _restore_host)


def _restore_host(host: Host) -> None:
    try:
        with opened(host) as target:
            target.guard()
            for environment in host.environments.select_related("project"):
                if not _is_right(target, environment, host):
                    _restore(target, environment, host)
    except LeaseLost:
        log.warning("the routes of %s are being restored by another worker", host)
    except TargetError as error:
        log.warning("the routes of %s could not be restored: %s", host, error)


def _is_right(target: Target, environment: Environment, host: Host) -> bool:
    """A look without a lease, so that the many times when all is well hold up nobody."""
    serving = Running.objects.filter(environment=environment, host=host).first()
    route = target.proxy.routes().get(server_name(environment), "")
    there = target.containers(labels_of(environment))
    if serving is None:
        return not there and not route
    return (
        [container.id for container in there] == [serving.container_id]
        and there[0].running == serving.healthy
        and there[0].running
        and there[0].address == route
    )


def _restore(target: Target, environment: Environment, host: Host) -> None:
    """Under a lease that keeps deployments from beginning, so that neither undoes the other."""
    with leases.tend(environment) as lease:
        if lease is None:
            return
        serving = Running.objects.filter(environment=environment, host=host).first()
        healthy = _route(target, environment, serving, lease)
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


def _route(target: Target, environment: Environment, serving: Running | None, lease: Lease) -> bool:
    """Send traffic to the container of ``serving``, started again if need be; False if it is
    gone."""
    if serving is None:
        target.proxy.forget(server_name(environment), permit=lease.check)
        return False
    known = {c.id: c for c in target.containers(labels_of(environment))}
    container = known.get(serving.container_id)
    if container is None:
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


def server_name(environment: Environment) -> str:
    return f"gantry-{environment.pk}"


def labels_of(environment: Environment) -> dict[str, str]:
    """What marks an environment's containers as ours, also beside another installation's."""
    return {
        "installation": installation(),
        "project": environment.project.slug,
        "environment": environment.name,
    }


def installation() -> str:
    return hashlib.sha256(f"installation {settings.SECRET_KEY}".encode()).hexdigest()[:8]


def _pull_token(location: Location) -> str | None:
    if location.registry != settings.GANTRY.registry:
        return None
    access = registry_tokens.Access(location.name, ("pull",))
    return registry_tokens.issue(registry_tokens.PULL_USER, [access])


def _pull_credentials(location: Location) -> Credentials | None:
    if location.registry != settings.GANTRY.registry:
        return None
    return registry_tokens.PULL_USER, registry_tokens.pull_password(location.name)
