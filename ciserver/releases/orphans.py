"""Takes manifests out of the registry beside us that no row knows.

A worker that is killed after it pushed a manifest and before it wrote that down leaves one, and
so does a step cache whenever it is written anew: what its tag named before. ``retention`` goes by
rows and never meets them, and their layers would stay for ever.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import httpx
from django.conf import settings

from ciserver.accounts.models import AuditEntry
from ciserver.lib.registry_lock import nothing_named
from ciserver.projects.models import Project
from ciserver.releases import registry_disk, retention
from ciserver.releases.models import Running
from ciserver.releases.policy import GANTRY
from ciserver.releases.targets.images import Location

log = logging.getLogger(__name__)
# Long after any push: the lock below keeps this apart from those that go on, and whoever was just
# killed may be looked into by hand; of a step cache somebody may still read what was there before.
GRACE = 24 * 3600.0  # seconds
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # what a pipeline tags its images with
Images = set[tuple[str, str]]


def remove() -> int:
    """Delete them, ``retention.AT_A_TIME`` at most; how many went. A chore."""
    return sum(_remove_of(project) for project in Project.objects.order_by("served_at"))


def _remove_of(project: Project) -> int:
    if not any(_old(project)):
        return 0
    with nothing_named(settings.GANTRY.run, patience=retention.PATIENCE) as nobody_pushes:
        if not nobody_pushes:
            return 0  # the next round comes
        known = _known(project)
        unknown = [image for image in _old(project) if image not in known]
        return sum(_delete(name, digest) for name, digest in unknown[: retention.AT_A_TIME])


def _old(project: Project) -> Iterator[tuple[str, str]]:
    """(name, digest) of what is past GRACE and has no tag but those that pipelines give."""
    cache = Location.parse(settings.GANTRY.step_cache(project.slug)).name
    for name in registry_disk.names_of(project.slug):
        for one in registry_disk.revisions_of(name):
            by_pipelines = name != cache and all(map(COMMIT.fullmatch, one.tags))
            if one.age > GRACE and (by_pipelines or not one.tags):
                yield name, one.digest


def _known(project: Project) -> Images:
    """What a pipeline, a release or a host has, whatever the registry was called then."""
    found: Images = set()
    for repository, digest, images in project.pipelines.exclude(digest="").values_list(
        "repository", "digest", "images"
    ):
        found |= _named(repository, digest, images)
    for release in project.releases.all():
        found |= _named(release.repository, release.digest, release.images)
    running = Running.objects.filter(release__project=project)
    return found | {(project.slug, digest) for digest in running.values_list("digest", flat=True)}


def _named(repository: str, digest: str, images: dict[str, dict[str, str]]) -> Images:
    pairs = [(repository, digest), *((one["repository"], one["digest"]) for one in images.values())]
    return {(Location.parse(name).name, digest) for name, digest in pairs if name}


def _delete(name: str, digest: str) -> int:
    try:
        retention.delete_manifest(f"{settings.GANTRY.registry}/{name}", digest)
    except httpx.HTTPError as error:
        log.warning("%s@%s, which no row knows, could not be deleted: %s", name, digest, error)
        return 0
    AuditEntry.record(actor=GANTRY, action="registry.remove-unknown", target=name, digest=digest)
    return 1
