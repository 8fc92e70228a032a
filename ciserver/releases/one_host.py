"""A deployment on one of its hosts: pull, start, check, switch, retire.

Each step finds what an attempt before it did, so that the whole can be run again after a crash
at any point. First traffic is switched, then that is recorded, both only by who holds the fence;
until then, and whenever a step fails, the container that served goes on serving. If a worker dies
between the two, the next attempt, or else ``restoring``, makes them agree again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce
from django.utils import timezone

from ciserver.releases import containers, domains
from ciserver.releases.health import Gate
from ciserver.releases.hosts import LOCAL, clock_problem, opened
from ciserver.releases.leases import Lease, LeaseLost
from ciserver.releases.models import (
    Deployment,
    DeploymentState,
    DeploymentStep,
    Environment,
    Host,
    Running,
)
from ciserver.releases.naming import installation, labels_of, network_of, server_name
from ciserver.releases.restoring import route
from ciserver.releases.sealed import masked, secrets_of
from ciserver.releases.steps import Recorder
from ciserver.releases.targets import Target
from ciserver.releases.targets.base import DRAIN, GRACE
from ciserver.releases.targets.errors import TargetError
from ciserver.releases.targets.images import Location
from ciserver.releases.targets.secret_files import fits_a_variable
from ciserver.releases.targets.spec import Container, ImageFacts, Wanted, check_as

if TYPE_CHECKING:
    from ciserver.releases.targets.credentials import Credentials

log = logging.getLogger(__name__)
MIB = 1024 * 1024
LOOKED_AT = 20  # images that came to a host before


class Mismatch(Exception):
    """What runs is not what was recorded."""


@contextmanager
def connected(record: Recorder, host: Host) -> Iterator[Target]:
    """The target of ``host``. Reaching another machine is a step that can fail, and is told."""
    with ExitStack() as stack:
        if host.kind == LOCAL:
            yield stack.enter_context(opened(host))
            return
        with record.step("connect", followed=True) as note:
            target = stack.enter_context(opened(host))
            note.text = f"{target.engine.program} of {target.machine.facts.user}"
            if late := clock_problem(target):
                note.text += f"; {late}"
        stack.callback(record.flush)
        yield target


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDeployment:
    """One deployment on one host."""

    deployment: Deployment
    location: Location
    image: ImageFacts
    host: Host
    target: Target
    lease: Lease

    def run(self, record: Recorder) -> None:
        step = partial(record.step, followed=True)
        with ExitStack() as undo:
            with step("pull") as note:
                note.text = self._pull()
            with step("start") as note:
                undo.callback(self._withdraw)
                container = self._start()
                note.text = f"{container.name} {container.id[:12]}"
            with step("check") as note:
                note.text = self._check(container)
            with step("switch") as note:
                note.text = self._switch(container)
            undo.pop_all()
        with record.step("retire") as note:
            note.text = self._retire(container)

    def _pull(self) -> str:
        def credentials() -> Credentials | None:
            return containers.credentials(self.deployment.release.repository)

        moved = self.target.pull(
            self.image,
            self.location,
            credentials,
            network=self.network,
            brought=self._brought(),
            pulse=self.lease.check_wanted,
        )
        Deployment.objects.filter(pk=self.deployment.pk).update(
            bytes_pulled=Coalesce(F("bytes_pulled"), 0) + moved
        )
        total = sum(layer.size for layer in self.image.layers)
        return f"{moved:,} of {total:,} bytes of layers were not here yet"

    def _brought(self) -> list[str]:
        """The last images that came to the host, which may be there still, and this one if it
        did."""
        steps = DeploymentStep.objects.filter(
            host=self.host, name="pull", state=DeploymentState.SUCCEEDED
        ).order_by("-pk")
        same = steps.filter(deployment__release__digest=self.image.digest).exists()
        images = steps.values_list("deployment__release__image", flat=True)[:LOOKED_AT]
        found = [image["config_digest"] for image in images if image]
        return list(dict.fromkeys([*([self.image.config_digest] if same else []), *found]))

    def _start(self) -> Container:
        return self.target.start(self.wanted)

    def _check(self, container: Container) -> str:
        environment = self.environment
        check = check_as(environment.health, environment.health_passes, self.image.check)
        gate = Gate(
            self.target,
            check,
            environment.health_timeout,
            pulse=self.lease.check_wanted,
            stable_for=environment.stable_seconds,
            mask=partial(masked, self.deployment),
        )
        healthy = gate.wait(container)
        if not healthy.runs(self.image):
            raise Mismatch(
                f"{self.host} started the image {healthy.image_id[:19]}, which is not"
                f" {self.image.digest[:19]}, the one that was tested. Look at who changed it there"
            )
        return f"{check.describe()} passed {check.passes} times, then it stayed up"

    def _switch(self, container: Container) -> str:
        proxy, name = self.target.proxy, server_name(self.environment)
        if container.address:
            proxy.serve(name, port=self._port, upstream=container.address, permit=self.lease.check)
        else:
            proxy.forget(name, permit=self.lease.check)
        serving = self._record(container)
        if not container.address:
            return "it has no port"
        told = domains.serve(self.target, self.environment, serving, self.lease)
        named = ", ".join(self.environment.domains.values_list("name", flat=True))
        missing = f"; not under {named}: {told}" if told else f", {named}" if named else ""
        return f"{proxy.listen or '*'}:{self._port}{missing}"

    @transaction.atomic
    def _record(self, container: Container) -> Running:
        """Under the lock that the next claim takes: it sees this row, or this sees its fence."""
        Environment.objects.select_for_update().get(pk=self.environment.pk)
        self.lease.check()
        row, _ = Running.objects.update_or_create(
            environment=self.environment,
            host=self.host,
            defaults={
                "release": self.deployment.release,
                "container_id": container.id,
                "digest": self.image.digest,
                "healthy": True,
                "stopped_by": "",
                "since": timezone.now(),
            },
        )
        return row

    def _retire(self, container: Container) -> str:
        others = [c for c in self._ours() if c.id != container.id]
        if container.address:
            name = server_name(self.environment)
            self.target.proxy.drain(name, seconds=DRAIN, permit=self.lease.check)
        for other in others:
            self.lease.check()
            self.target.remove(other, grace=GRACE, alone=False)
        return ", ".join(other.name for other in others) or "nothing to stop"

    def _withdraw(self) -> None:
        """After a failure: traffic to what the record says, and away with the new container."""
        try:
            self.lease.check()
            serving = Running.objects.filter(environment=self.environment, host=self.host).first()
            route(self.target, self.environment, serving, self.lease)
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
    def network(self) -> str:
        return network_of(self.environment.pk)

    @property
    def wanted(self) -> Wanted:
        """Its name covers all that makes it what it is: the same again is the same container."""
        environment, release = self.environment, self.deployment.release
        secrets = secrets_of(self.deployment, environment)
        env = containers.variables(
            release, environment, given=environment.variables, port=self.image.port
        )
        content = [
            self.image.digest,
            env,
            environment.memory_mib,
            environment.cpus,
            environment.pids,
            release.project.id_base,
            self.network,
        ]
        # Of secrets what tells values apart: the name must not tell anything about them.
        content += [["files", *(row.fingerprint for row in secrets)]] if secrets else []
        values = {row.name: row.value().reveal() for row in secrets}
        known = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
        name = f"gantry-{installation()}-{release.project.slug}-{environment.name}-{known}"
        return Wanted(
            name=name,
            reference=f"{self.location.registry}/{self.location.name}@{self.image.digest}",
            port=self.image.port,
            memory=environment.memory_mib * MIB,
            cpus=environment.cpus,
            pids=environment.pids,
            env=env | {name: value for name, value in values.items() if fits_a_variable(value)},
            files=values,
            network=self.network,
            id_base=release.project.id_base,
            labels={
                **labels_of(environment),
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
