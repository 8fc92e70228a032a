"""Takes away what owners wanted gone: environments from their hosts, projects altogether.

Each step may be done again, and a worker that dies in between leaves the rest to the next one:
rows go last. A host that does not answer holds up its environment, and what the row then says is
why; it is tried again each minute, and removing the host lets the environment go.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

import httpx
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib import outbox
from ciserver.lib.problems import Refused
from ciserver.pipelines import events, logfiles
from ciserver.pipelines.models import Job, Pipeline, State
from ciserver.projects.models import Project
from ciserver.releases import addresses, leases, leaving, registry_repositories
from ciserver.releases.archiving import ENVIRONMENT, PROJECT
from ciserver.releases.hosts import opened
from ciserver.releases.leases import Lease, LeaseLost
from ciserver.releases.models import Environment, Host, Release
from ciserver.releases.policy import GANTRY
from ciserver.releases.targets.errors import TargetError

log = logging.getLogger(__name__)
AT_A_TIME = 100  # pipelines: one transaction holds up no other for long


def anything_due() -> bool:
    """Whether ``remove_all`` would find something: for the scheduler, which has no root."""
    return _environments().exists() or _projects().exists()


def remove_all() -> None:
    """A chore: whatever is wanted gone and is still there."""
    for environment in _environments().exclude(project__in=_projects()):
        remove_environment(environment.pk)
    for project in _projects():
        delete_project(project.pk)


def remove_environment(pk: int) -> bool:
    """Whether it is gone. Called again, it goes on where it stopped."""
    outbox.keep(ENVIRONMENT, pk)
    row = Environment.objects.filter(pk=pk, removed_at__isnull=False).first()
    if row is None:
        return True
    name, hosts = str(row), [host.name for host in _hosts_of(row)]
    if not _leave(row):
        return False
    with transaction.atomic():
        addresses.give_up_all(row, row.removed_by)
        if row.delete()[0]:  # else another worker was faster
            AuditEntry.record(actor=GANTRY, action="environment.removed", target=name, hosts=hosts)
    events.publish_matrix()
    return True


def delete_project(pk: int) -> bool:
    """Whether it is gone. Called again, it goes on where it stopped."""
    outbox.keep(PROJECT, pk)
    project = _due(pk)
    if project is None:
        return True
    if project.pipelines.filter(state=State.RUNNING).exists():
        return False  # it was cancelled, and ends within seconds
    left = [_leave(environment) for environment in project.environments.all()]
    if not all(left):
        return False
    try:
        images = registry_repositories.delete(project)
        _delete_pipelines(project)
        _delete_files(project)
    except (httpx.HTTPError, Refused, OSError) as error:
        log.warning("%s could not be deleted yet: %s", project, error)
        return False
    slug = project.slug
    with transaction.atomic():
        if project.delete()[0]:  # else another worker was faster
            AuditEntry.record(actor=GANTRY, action="project.deleted", target=slug, images=images)
    events.publish_matrix()
    return True


def _environments() -> QuerySet[Environment]:
    return Environment.objects.filter(removed_at__isnull=False).select_related("project")


def _projects() -> QuerySet[Project]:
    return Project.objects.filter(delete_at__lte=timezone.now())


@transaction.atomic
def _due(pk: int) -> Project | None:
    """The project, if it is to be deleted now; a restoration that goes on is waited for."""
    return _projects().select_for_update().filter(pk=pk).first()


def _leave(environment: Environment) -> bool:
    """Take ``environment`` from all of its hosts; whether that could be done, or the row says why
    not."""
    said: list[str] = []
    hosts = _hosts_of(environment)
    with leases.tend(environment) as lease:
        if lease is None:
            said.append("A deployment goes on there, or another worker is at it.")
        else:
            said += filter(None, (_left(environment, host, lease) for host in hosts))
    hint = " It is tried again each minute. If a host is gone for good, remove the host."
    problem = " ".join(said) + (hint if said else "")
    Environment.objects.filter(pk=environment.pk).update(removal_problem=problem)
    return not said


def _left(environment: Environment, host: Host, lease: Lease) -> str:
    """Why ``host`` could not be left; empty if it was."""
    try:
        _leave_host(environment, host, lease)
    except TargetError as error:
        return f"{host} could not be left: {str(error).rstrip('. ')}."
    except LeaseLost:
        return "Another worker is at it."
    return ""


def _leave_host(environment: Environment, host: Host, lease: Lease) -> None:
    with opened(host) as target:
        leaving.clear(target, environment, lease)
    with transaction.atomic():
        lease.check()
        environment.running.filter(host=host).delete()
        environment.hosts.remove(host)


def _hosts_of(environment: Environment) -> list[Host]:
    running = Host.objects.filter(running__environment=environment)
    return list((environment.hosts.all() | running).distinct())


def _delete_pipelines(project: Project) -> None:
    """With releases, jobs, logs and artifacts. Raises Refused when the logs' storage is away."""
    with transaction.atomic():
        for environment in project.environments.all():
            addresses.give_up_all(environment, project.archived_by)
        project.environments.all().delete()  # and the deployments, which hold releases
    while rows := list(project.pipelines.order_by("pk")[:AT_A_TIME]):
        for job in Job.objects.filter(pipeline__in=rows).select_related("pipeline"):
            logfiles.remove(job.log_path)
            _drop([settings.GANTRY.artifacts / str(job.pk)])
        _drop(settings.GANTRY.logs / "pipelines" / str(row.pk) for row in rows)
        with transaction.atomic():
            Release.objects.filter(pipeline__in=rows).delete()
            Pipeline.objects.filter(pk__in=[row.pk for row in rows]).delete()


def _delete_files(project: Project) -> None:
    """Here: another worker's machine forgets its caches when it makes room."""
    config = settings.GANTRY
    name = f"{project.pk}.git"
    _drop([config.repositories / name, config.mirrors / name, config.caches / str(project.pk)])


def _drop(folders: Iterable[Path]) -> None:
    """Raises OSError when somebody still writes there, as a push does that began before."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise OSError(f"{folder} is written to, or cannot be removed.")
