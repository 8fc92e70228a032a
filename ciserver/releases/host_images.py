"""Images on hosts: those of earlier releases go, but for what runs and the last ways back.

Only images of our own releases are taken, by their digests, and never by force: one that a
container was made from stays, whoever made it, and so does one that somebody gave a name.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial

from django.db.models import Q, QuerySet

from ciserver.releases import leases, retention, rolling
from ciserver.releases.hosts import opened
from ciserver.releases.models import (
    UNFINISHED,
    Deployment,
    DeploymentState,
    DeploymentStep,
    Environment,
    Host,
    Release,
)
from ciserver.releases.targets.errors import TargetError

log = logging.getLogger(__name__)


def prune(environment_id: int) -> int:
    """After a success: take what its project needs no more from the hosts of an environment; how
    many images went. While something of the project is on its way there, that one's end does it."""
    environment = Environment.objects.select_related("project").filter(pk=environment_id).first()
    if environment is None:
        return 0
    going = Deployment.objects.filter(environment__project=environment.project_id)
    if going.filter(state__in=UNFINISHED).exists():
        return 0
    beside = Environment.objects.filter(project=environment.project_id).order_by("pk")
    with ExitStack() as stack:
        # Nothing begins meanwhile: what a roll-back has just found there would be gone.
        if any(stack.enter_context(leases.tend(one)) is None for one in beside):
            return 0
        hosts = [*environment.hosts.all(), *_left_by(environment)]
        act = partial(_prune, project=environment.project_id)
        return sum(rolling.side_by_side(list(dict.fromkeys(hosts)), act))


def _left_by(environment: Environment) -> QuerySet[Host]:
    """The hosts that its last deployment took it from."""
    last = environment.deployments.filter(state=DeploymentState.SUCCEEDED).order_by("-pk")[:1]
    steps = DeploymentStep.objects.filter(
        deployment__in=list(last), name="leave", state=DeploymentState.SUCCEEDED
    )
    return Host.objects.filter(pk__in=steps.values("host"))


def spent(host: Host, *, project: int | None = None) -> list[Release]:
    """Releases whose images ``host`` need not keep, of the projects that are deployed to it, and
    of ``project``, which may be so no longer."""
    here = Environment.objects.filter(Q(hosts=host) | Q(running__host=host))
    projects = {*here.values_list("project", flat=True)} | ({project} if project else set())
    brought = Release.objects.filter(project__in=projects).exclude(image={})
    return list(brought.exclude(digest__in=retention.kept_on(host)))


def _prune(host: Host, *, project: int) -> int:
    """How many went from ``host``. One that cannot be reached is left for the next time."""
    unneeded = {row.image["config_digest"] for row in spent(host, project=project)}
    if not unneeded:
        return 0
    try:
        with opened(host) as target:
            there = target.images(unneeded)
            target.remove_images(there)
            gone = there - target.images(there)
    except TargetError as error:
        log.warning("old images stay on %s for now: %s", host, error)
        return 0
    if gone:
        log.info("%s images of earlier releases were removed from %s", len(gone), host)
    return len(gone)
