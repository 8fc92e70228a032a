"""The repositories of a project in the registry beside us, and deleting all that is in them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
from django.conf import settings

from ciserver.accounts import registry_tokens
from ciserver.projects.models import Project
from ciserver.releases import registry_disk
from ciserver.releases.policy import GANTRY
from ciserver.releases.targets.images import MANIFESTS, TIMEOUT, Location

ACCEPTED = ", ".join(
    [
        *MANIFESTS,
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ]
)


def delete(project: Project) -> int:
    """Delete every manifest of ``project``, its step cache's too; how many images there were. What
    another registry has stays there. The blobs go with the next collection (see ``garbage``).
    Raises httpx.HTTPError."""
    _delete(Location.parse(settings.GANTRY.step_cache(project.slug)), set())
    built = project.pipelines.exclude(digest="").values_list("digest", flat=True)
    known = set(built)  # a tag may have moved on from one of them
    return sum(_delete(location, known) for location in _locations(project))


def _locations(project: Project) -> Iterator[Location]:
    names = set(project.pipelines.exclude(repository="").values_list("repository", flat=True))
    for images in project.releases.exclude(images={}).values_list("images", flat=True):
        names |= {one["repository"] for one in images.values()}
    for images in project.pipelines.exclude(images={}).values_list("images", flat=True):
        names |= {one["repository"] for one in images.values()}
    here = f"{settings.GANTRY.registry}/"
    names |= {here + name for name in registry_disk.names_of(project.slug)}  # also if no row tells
    for name in sorted(names):
        location = Location.parse(name)
        own = location.name.partition("/")[0] == project.slug
        if own and location.registry == settings.GANTRY.registry:
            yield location


def _delete(location: Location, known: set[str]) -> int:
    access = registry_tokens.Access(location.name, ("delete", "pull"))
    token = registry_tokens.issue(GANTRY, [access])
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=location.url, headers=headers, timeout=TIMEOUT) as client:
        answers = [
            _answered(client.delete(f"/manifests/{digest}"))
            for digest in known | set(_digests(client)) | set(_untagged(location))
        ]
    return sum(answer.is_success for answer in answers)


def _digests(client: httpx.Client) -> Iterator[str]:
    """Of every tag (distribution-spec, "Listing Tags"); each image that was pushed has one."""
    listed = _answered(client.get("/tags/list"))
    if listed.status_code == httpx.codes.NOT_FOUND:
        return
    for tag in listed.json().get("tags") or ():
        found = _answered(client.head(f"/manifests/{tag}", headers={"Accept": ACCEPTED}))
        if digest := found.headers.get("Docker-Content-Digest"):
            yield digest


def _untagged(location: Location) -> Iterator[str]:
    """Such as what the step cache was before; the registry's API does not tell of them."""
    return (one.digest for one in registry_disk.revisions_of(location.name))


def _answered(response: httpx.Response) -> httpx.Response:
    if response.status_code != httpx.codes.NOT_FOUND:
        response.raise_for_status()
    return response
