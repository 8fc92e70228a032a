"""Which images the registry still needs, and taking the others out of it.

An image stays while it runs or is about to, while an environment may go back to it, and while it
is among the newest or young. It is first marked in the database, under the project's lock and the
same locks as promotions take, and only then deleted: whoever asks for it in between is refused
with a sentence, and no deployment ever finds it half gone.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import httpx
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from ciserver.accounts import registry_tokens
from ciserver.accounts.models import AuditEntry
from ciserver.lib.models import OutboxEntry
from ciserver.lib.registry_lock import nothing_named
from ciserver.pipelines.models import Pipeline
from ciserver.projects.models import Project
from ciserver.releases.models import (
    UNFINISHED,
    Deployment,
    DeploymentState,
    Environment,
    Host,
    Release,
    Running,
)
from ciserver.releases.policy import GANTRY
from ciserver.releases.targets.images import TIMEOUT, Location

log = logging.getLogger(__name__)
NEWEST = 30  # releases of a project
WAYS_BACK = 5  # releases that served an environment before the one that does
YOUNG = timedelta(days=14)
AT_A_TIME = 50  # images in one round
PATIENCE = 2.0  # seconds for manifests that are being pushed
PASSED = "pipeline.passed"  # the topic of a pipeline whose release is to be made


def retire() -> int:
    """Mark and delete what no project needs; how many images were deleted. A chore."""
    for project in Project.objects.filter(releases__removed_at=None).distinct():
        mark(project)
    return _delete_marked()


@transaction.atomic
def mark(project: Project) -> list[Release]:
    """Mark the releases of ``project`` whose images nothing needs any more."""
    Project.objects.select_for_update().get(pk=project.pk)
    # What is asked for meanwhile waits for these locks and then finds the mark.
    list(Environment.objects.select_for_update().filter(project=project).order_by("pk"))
    needed = needed_digests(project)
    rows = project.releases.filter(removed_at=None).exclude(digest__in=needed)
    ours = [row for row in rows if Location.parse(row.repository).registry == _registry()]
    gone = ours[-AT_A_TIME:]  # the oldest first
    Release.objects.filter(pk__in=[row.pk for row in gone]).update(removed_at=timezone.now())
    for row in gone:
        AuditEntry.record(
            actor=GANTRY, action="release.remove-image", target=str(row), digest=row.digest
        )
    return gone


def needed_digests(project: Project) -> set[str]:
    """The digests that must stay. By digest: two releases may share one."""
    releases = project.releases.filter(removed_at=None)
    kept = set(releases.order_by("-number")[:NEWEST].values_list("digest", flat=True))
    young = releases.filter(created_at__gt=timezone.now() - YOUNG)
    kept |= set(young.values_list("digest", flat=True))
    running = Running.objects.filter(release__project=project)
    kept |= set(running.values_list("release__digest", flat=True))
    kept |= set(running.values_list("digest", flat=True))
    going = Deployment.objects.filter(release__project=project, state__in=UNFINISHED)
    kept |= set(going.values_list("release__digest", flat=True))
    for environment in project.environments.all():
        kept |= ways_back(environment)
    return kept


def ways_back(environment: Environment) -> set[str]:
    """What served here last, and the WAYS_BACK others that did before it."""
    served = environment.deployments.filter(
        state=DeploymentState.SUCCEEDED, release__removed_at=None
    )
    digests = served.order_by("-pk").values_list("release__digest", flat=True)
    found: dict[str, None] = {}
    for digest in digests.iterator():
        found[digest] = None
        if len(found) > WAYS_BACK:
            break
    return set(found)


def kept_on(host: Host) -> set[str]:
    """The digests whose images ``host`` keeps: what runs there or is on its way, and the ways back
    of each environment there. Others go with the next success (see ``host_images``)."""
    here = Q(hosts=host) | Q(running__host=host)
    environments = list(Environment.objects.filter(here).distinct())
    running = Running.objects.filter(host=host)
    kept = set(running.values_list("digest", flat=True))
    kept |= set(running.values_list("release__digest", flat=True))
    going = Deployment.objects.filter(environment__in=environments, state__in=UNFINISHED)
    kept |= set(going.values_list("release__digest", flat=True))
    for one in environments:
        kept |= ways_back(one)
    return kept


def _delete_marked() -> int:
    """Also those that an earlier round marked and could not delete."""
    marked = Release.objects.filter(removed_at__isnull=False, image_deleted=False)
    deleted = 0
    for release in marked.order_by("pk")[:AT_A_TIME]:
        with nothing_named(settings.GANTRY.run, patience=PATIENCE) as nobody_pushes:
            if not nobody_pushes:
                break  # the next round comes
            try:
                deleted += sum(_delete_unshared(*image) for image in release.every_image())
            except httpx.HTTPError as error:
                log.warning("the image of %s could not be deleted: %s", release, error)
                continue
            Release.objects.filter(pk=release.pk).update(image_deleted=True)
    return deleted


def _delete_unshared(repository: str, digest: str) -> bool:
    """A digest that was built again meanwhile is needed again, also by a pipeline that passed
    and whose release is still to be made. While manifests are pushed this must not be asked."""
    if _is_promised(repository, digest):
        return False
    others = Release.objects.filter(removed_at=None)
    main = others.filter(repository=repository, digest=digest)
    project = Location.parse(repository).name.partition("/")[0]
    beside = (
        others.filter(project__slug=project).exclude(images={}).values_list("images", flat=True)
    )
    wanted = {"repository": repository, "digest": digest}
    if main.exists() or any(wanted in images.values() for images in beside):
        return False
    delete_manifest(repository, digest)
    return True


def _is_promised(repository: str, digest: str) -> bool:
    """Asked before releases are: a promise is deleted after its release was made."""
    promises = OutboxEntry.objects.filter(topic=PASSED).values("object_id")
    pipelines = Pipeline.objects.filter(pk__in=promises)
    wanted = {"repository": repository, "digest": digest}
    return any(
        (one.repository, one.digest) == (repository, digest) or wanted in one.images.values()
        for one in pipelines
    )


def delete_manifest(repository: str, digest: str) -> None:
    """Its blobs go when the registry's garbage is collected
    (distribution-spec, "Deleting Manifests")."""
    location = Location.parse(repository)
    access = registry_tokens.Access(location.name, ("delete", "pull"))
    token = registry_tokens.issue(GANTRY, [access])
    response = httpx.delete(
        f"{location.url}/manifests/{digest}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=TIMEOUT,
    )
    if response.status_code != httpx.codes.NOT_FOUND:
        response.raise_for_status()


def _registry() -> str:
    return str(settings.GANTRY.registry)
