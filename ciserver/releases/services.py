"""What a pipeline or a person asks of releases: make, promote, roll back, add a place to run."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max, Q

from ciserver.accounts.models import AuditEntry
from ciserver.lib.problems import Refused
from ciserver.pipelines.models import Event, Pipeline, State
from ciserver.projects.models import SLUG, Project, Role
from ciserver.projects.services import require, require_open
from ciserver.releases import addresses, evidence, policy, queue
from ciserver.releases.models import (
    Deployment,
    DeploymentKind,
    DeploymentState,
    Environment,
    Host,
    Release,
)
from ciserver.releases.policy import GANTRY
from ciserver.releases.targets.spec import wrong_variable

LOCAL = "local"  # the host that is this machine, and its kind


@transaction.atomic
def make_release(pipeline: Pipeline) -> Release:
    """The release of a pipeline that passed, made once, and its automatic deployments.

    Raises ValueError for a pipeline that did not pass, pushed no image or is a fork's.
    """
    if pipeline.from_fork:
        raise ValueError(f"pipeline {pipeline} is of a fork, whose work is never released")
    if pipeline.state != State.PASSED or not pipeline.digest:
        raise ValueError(f"pipeline {pipeline} is {pipeline.state} and has no image to release")
    # The project's row is the lock that keeps numbers without a gap or a twin.
    project = Project.objects.select_for_update().get(pk=pipeline.project_id)
    if made := Release.objects.filter(pipeline=pipeline).first():
        return made
    if same := _same_image(pipeline):
        return _tag(same, pipeline)
    last = project.releases.aggregate(last=Max("number"))["last"] or 0
    release = Release.objects.create(
        project=project,
        number=last + 1,
        pipeline=pipeline,
        commit=pipeline.commit,
        title=pipeline.title,
        repository=pipeline.repository,
        digest=pipeline.digest,
        images=pipeline.images,
        evidence=evidence.collect(pipeline),
        configuration=evidence.configuration(pipeline),
    )
    AuditEntry.record(
        actor=GANTRY,
        action="release.make",
        target=str(release),
        digest=release.digest,
        commit=release.commit,
    )
    # The others get it from the one before them: see queue.follow.
    first = project.environments.filter(removed_at=None).first()
    if first and first.auto and queue.goes_forward(release, first):
        queue.ask(release, first, DeploymentKind.AUTO, GANTRY)
    transaction.on_commit(lambda: queue.tell_of(release))
    return release


def _same_image(pipeline: Pipeline) -> Release | None:
    """The release that a tag's pipeline has built once more, to the byte."""
    if pipeline.event != Event.TAG:
        return None
    return Release.objects.filter(
        project=pipeline.project_id,
        commit=pipeline.commit,
        digest=pipeline.digest,
        images=pipeline.images,
        removed_at=None,
    ).first()


def _tag(release: Release, pipeline: Pipeline) -> Release:
    name = pipeline.ref.removeprefix("refs/tags/")
    if all(tag["pipeline"] != pipeline.number for tag in release.tags):
        release.tags = [*release.tags, {"name": name, "pipeline": pipeline.number}]
        release.save(update_fields=["tags"])
        AuditEntry.record(actor=GANTRY, action="release.tag", target=str(release), tag=name)
    return release


@transaction.atomic
def promote(*, release: Release, environment: Environment, user: Any) -> Deployment:
    """Ask for ``release`` in ``environment``: queued, or waiting for approvals and soak time.

    Raises Refused when the policy says no, or the line is stopped."""
    environment = Environment.objects.select_for_update().get(pk=environment.pk)
    release.refresh_from_db(fields=["removed_at"])  # retention marks under the same lock
    _require_right(user, release, environment)
    if stop := policy.stopped(environment):
        raise Refused(
            f"The line is stopped by {stop.by}: {stop.reason}",
            code="line.stopped",
            hint="Rolling back is still possible. Whoever stopped it can start it again.",
        )
    demanded = policy.demanded(environment, user.get_username())
    if reason := policy.refusal(release, demanded):
        hint = "Promote it there first, or wait until its deployment has succeeded."
        raise Refused(reason, code="release.order", hint=hint)
    _require_enough_approvers(demanded, user)
    return queue.ask(release, environment, DeploymentKind.PROMOTION, user.get_username())


@transaction.atomic
def roll_back(*, environment: Environment, release: Release, user: Any) -> Deployment:
    """Queue a release that served ``environment`` well before. Raises Refused."""
    environment = Environment.objects.select_for_update().get(pk=environment.pk)
    release.refresh_from_db(fields=["removed_at"])  # retention marks under the same lock
    _require_right(user, release, environment)
    if not policy.ran_well(release, environment):
        raise Refused(
            f"{release.name} never ran healthy in {environment.name}: there is no way back to it.",
            code="release.never-ran",
            hint="Choose one that did, or promote it.",
        )
    if release.removed_at:
        raise Refused(
            f"The image of {release.name} was removed from the registry to make room.",
            code="release.removed",
            hint="Choose a later one, or push its commit again.",
        )
    return queue.ask(release, environment, DeploymentKind.ROLLBACK, user.get_username())


def would_wait_for(*, release: Release, environment: Environment, user: Any) -> list[str]:
    """What a promotion that ``user`` asks for now would wait for, or be refused for."""
    asked = Deployment(
        release=release,
        environment=environment,
        kind=DeploymentKind.PROMOTION,
        requested_by=user.get_username(),
    )
    return policy.blockers(asked)


def earlier(environment: Environment) -> Release | None:
    """The release to roll back to: the last one that served well here before what does now."""
    rows = Deployment.objects.filter(environment=environment, state=DeploymentState.SUCCEEDED)
    order = rows.select_related("release").order_by("-pk")
    now = environment.running.values_list("release", flat=True).first()
    served = [row.release for row in order[:100]]
    here = now or (served[0].pk if served else None)
    return next((one for one in served if one.pk != here and not one.removed_at), None)


@transaction.atomic
def create_environment(
    *,
    project: Project,
    name: str,
    hosts: Iterable[Host] = (),
    auto: bool = False,
    port: int | None = None,
    actor: str = GANTRY,
    variables: Mapping[str, str] | None = None,
    **fields: Any,
) -> Environment:
    """A new environment at the end of the project's chain, with a port of its own. Its
    ``variables`` are what its containers find in their environment. Raises Refused."""
    if not re.fullmatch(SLUG, name):
        raise Refused(
            f"{name!r} cannot be an environment's name.",
            code="environment.name",
            hint="Use up to 63 lower-case letters, digits and '-'.",
            status=400,
        )
    if wrong := wrong_variable(variables or {}):
        hint = "Use a name of letters, digits and '_', and a value of one line, base64 perhaps."
        raise Refused(wrong, code="environment.variable", hint=hint, status=400)
    Project.objects.select_for_update().get(pk=project.pk)
    if project.environments.filter(name=name).exists():
        raise Refused(
            f"{project} has an environment {name!r} already.",
            code="environment.exists",
            hint="Choose another name, or change the settings of that one.",
        )
    last = project.environments.aggregate(last=Max("position"))["last"] or 0
    environment = Environment.objects.create(
        project=project,
        name=name,
        position=last + 1,
        auto=auto,
        port=port or _free_port(),
        variables=variables or {},
        **fields,
    )
    environment.hosts.set(hosts)
    AuditEntry.record(actor=actor, action="environment.create", target=str(environment))
    return environment


def usable_hosts(*, user: Any, names: Iterable[str]) -> list[Host]:
    """The hosts of these names, for an environment of a project that ``user`` maintains.

    ``local``, this machine, is everybody's: it builds and tests each project already, under the
    same limits as it deploys them. It is made when it is first asked for. Another host is for
    those who maintain a project that is deployed to it; who only sees such a project may not use
    its machines for one of their own. An administrator may use every host. Nobody makes a host
    other than ``local`` by naming it.

    Raises Refused, with the same words whether a host is not there or not theirs.
    """
    return [_usable_host(user, name) for name in names]


def _usable_host(user: Any, name: str) -> Host:
    if name == LOCAL:
        return Host.objects.get_or_create(name=LOCAL, defaults={"kind": "local"})[0]
    theirs = Q(environments__project__in=Project.objects.with_role(user, Role.MAINTAINER))
    hosts = Host.objects.all() if user.is_superuser else Host.objects.filter(theirs).distinct()
    if host := hosts.filter(name=name).first():
        return host
    raise Refused(
        f"There is no host {name!r} that you may use.",
        code="host.unknown",
        hint="Use 'local', this machine, or ask who maintains a project there.",
        status=404,
    )


@transaction.atomic
def attach_host(*, environment: Environment, user: Any, name: str = LOCAL) -> Host:
    """Let ``environment`` run on the host ``name`` too. Needs the role maintainer, and a host
    that ``user`` may use (see ``usable_hosts``)."""
    require(user, environment.project, Role.MAINTAINER)
    host = _usable_host(user, name)
    environment.hosts.add(host)
    AuditEntry.record(
        actor=user.get_username(),
        action="environment.attach",
        target=str(environment),
        host=host.name,
    )
    return host


def _require_right(user: Any, release: Release, environment: Environment) -> None:
    if not policy.may_promote(user, environment):
        role = Role(environment.promote_role).label
        raise Refused(
            f"This needs the role {role} in {environment.project}.",
            code="role",
            hint="Ask an owner of the project."
            f" An environment may also name people who promote to it; {environment.name} does not"
            " name you.",
            status=403,
        )
    require_standing(environment)
    if release.project_id != environment.project_id:
        raise Refused(
            f"{release} and {environment} belong to different projects.",
            code="release.project",
            hint="Name a release and an environment of one project.",
            status=400,
        )


def require_standing(environment: Environment) -> None:
    """Raise Refused for an environment that is being removed, or of an archived project."""
    require_open(environment.project)
    if words := policy.closed(environment):
        raise Refused(
            words,
            code="environment.removed",
            hint=f"Make another one: gantry new-env {environment.project} NAME",
        )


def _require_enough_approvers(environment: Environment, user: Any) -> None:
    """A promotion that nobody could ever approve is refused, not left to wait."""
    others = [one for one in policy.approvers(environment) if one.pk != user.pk]
    if len(others) < environment.approvals:
        raise Refused(
            f"{environment.name} needs {environment.approvals} approvals by others than you,"
            f" and names {len(others)} who could give one.",
            code="release.approvers",
            hint="Name more approvers, or let somebody else ask.",
        )


def _free_port() -> int:
    taken = set(Environment.objects.exclude(port=None).values_list("port", flat=True))
    taken |= addresses.held_ports()
    for port in settings.GANTRY.deploy_ports:
        if port not in taken and is_free(port):
            return int(port)
    ports = settings.GANTRY.deploy_ports
    raise Refused(
        f"All ports from {ports.start} to {ports.stop - 1} are in use.",
        code="environment.port",
        hint="Set GANTRY_DEPLOY_PORT to the first of 500 others.",
    )


def is_free(port: int) -> bool:
    """Whether nothing listens on ``port`` of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
