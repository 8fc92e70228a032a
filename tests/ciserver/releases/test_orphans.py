"""Manifests of a real registry that no row knows: they go a day later, all others stay."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ciserver.accounts.models import AuditEntry
from ciserver.lib.registry_lock import naming
from ciserver.projects.models import Project
from ciserver.releases import garbage, orphans, registry_disk, registry_repositories, tasks
from ciserver.releases.models import Release
from tests.ciserver.releases.conftest import Registry
from tests.ciserver.releases.test_garbage import can_be_pulled, ours, release

__all__ = ["ours"]
pytestmark = pytest.mark.django_db
COMMIT = f"{7:040x}"


def there(ours: Registry, name: str, digest: str) -> bool:
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    url = f"http://{ours.address}/v2/{name}/manifests/{digest}"
    return httpx.head(url, headers=accept).status_code == 200


def pushed(ours: Registry, name: str, *tags: str, hours: float = 30) -> str:
    """A manifest that was pushed so long ago, and nothing more came of it."""
    digest = ours.push(name, page=os.urandom(8).hex())
    for tag in tags:
        ours.tag(name, digest, tag)
    age(name, digest, hours)
    return digest


def age(name: str, digest: str, hours: float) -> None:
    revisions = registry_disk.storage() / "repositories" / name / "_manifests/revisions/sha256"
    then = time.time() - hours * 3600
    os.utime(revisions / digest.removeprefix("sha256:") / "link", (then, then))


@pytest.fixture
def recorded(ours: Registry, passed: Any) -> Iterator[Release]:
    row = release(ours, passed, "recorded")
    age("hello", row.digest, 1000)
    yield row
    assert can_be_pulled(ours, row)


def test_what_was_pushed_and_never_written_down_goes_with_its_layers(
    ours: Registry, recorded: Release
) -> None:
    lost = [pushed(ours, "hello", COMMIT), pushed(ours, "hello/worker", COMMIT)]
    tasks.retire()
    for name, digest in zip(("hello", "hello/worker"), lost, strict=True):
        assert not there(ours, name, digest)
        entry = AuditEntry.objects.get(action="registry.remove-unknown", target=name)
        assert entry.detail == {"digest": digest}
    assert AuditEntry.objects.get(action="registry.collect").detail["blobs"] >= 4
    assert garbage.collect().blobs == 0
    assert orphans.remove() == 0


def test_what_is_younger_than_a_day_stays_as_does_what_was_pushed_again_since(
    ours: Registry, recorded: Release
) -> None:
    young = pushed(ours, "hello", COMMIT, hours=23)
    again = pushed(ours, "hello")
    ours.tag("hello", again, COMMIT)  # the manifest is put once more
    assert orphans.remove() == 0
    assert there(ours, "hello", young)
    assert there(ours, "hello", again)


def test_nothing_goes_while_a_manifest_is_pushed_and_not_yet_in_a_row(
    ours: Registry, recorded: Release, settings: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("ciserver.releases.retention.PATIENCE", 0)
    lost = pushed(ours, "hello", COMMIT)
    with naming(settings.GANTRY.run):
        assert orphans.remove() == 0
    assert there(ours, "hello", lost)
    assert orphans.remove() == 1


def test_images_of_pipelines_without_a_release_and_those_beside_the_deployed_one_stay(
    ours: Registry, recorded: Release, passed: Any
) -> None:
    alone, beside = pushed(ours, "hello", COMMIT), pushed(ours, "hello/worker", COMMIT)
    row = passed(alone, repository="registry.of-old:5000/hello")  # its address was another then
    row.images = {"worker": {"repository": f"{ours.address}/hello/worker", "digest": beside}}
    row.save()
    assert orphans.remove() == 0


def test_of_a_step_cache_what_its_tags_name_stays_and_what_they_named_before_goes(
    ours: Registry, recorded: Release
) -> None:
    before = pushed(ours, "hello/cache", "protected")
    now = pushed(ours, "hello/cache", "protected")
    of_a_branch = pushed(ours, "hello/cache", COMMIT)  # whatever lanes may be called
    assert orphans.remove() == 1
    assert not there(ours, "hello/cache", before)
    assert there(ours, "hello/cache", now)
    assert there(ours, "hello/cache", of_a_branch)


def test_what_people_tagged_and_what_is_no_projects_stays(
    ours: Registry, recorded: Release
) -> None:
    kept = pushed(ours, "hello", COMMIT, "3")
    base = pushed(ours, "gantry/python")
    assert orphans.remove() == 0
    assert there(ours, "hello", kept)
    assert there(ours, "gantry/python", base)


def test_a_deleted_project_leaves_none_behind(ours: Registry, hello: Project) -> None:
    """Neither in a repository that no row names, nor without a tag."""
    left = [(name, pushed(ours, name)) for name in ("hello", "hello/worker", "hello/cache")]
    registry_repositories.delete(hello)
    assert not any(there(ours, name, digest) for name, digest in left)
