"""What a worker's store loses in time, and what of it a release still needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.images.store import Store
from builders.registry import Registry
from builders.resolve import Resolver
from ciserver.pipelines.models import Pipeline, State
from ciserver.pipelines.runner import workshop
from ciserver.releases.models import Release
from runtime.state import StateDirectory
from tests.builders.images.test_store import a_layer
from tests.builders.test_prune import age

pytestmark = [pytest.mark.root, pytest.mark.django_db]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store of this process's workshop, of which everything is too old."""
    made = Store(tmp_path / "store")
    shop = workshop.Workshop(
        config=replace(settings.GANTRY, store_days=0, home=tmp_path),
        store=made,
        state=StateDirectory(tmp_path / "sandboxes"),
        registry=Registry("registry.test"),
        resolver=Resolver(made, upstream=False),
    )
    monkeypatch.setattr(workshop, "open_workshop", lambda: shop)
    return made


def pushed(store: Store, name: str) -> dict[str, str]:
    """An image as it is in the store after its push."""
    image = store.save_image(ImageConfig(architecture="amd64"), [a_layer(store, name)])
    digest = image.manifest().digest
    repository = f"registry.test/app/{name}"
    store.tag(image, Reference.parse(repository).with_digest(digest), fetched=True)
    return {"repository": repository, "digest": digest}


def test_every_image_of_a_release_stays_until_the_release_gives_them_up(
    project: Any, store: Store
) -> None:
    images = {name: pushed(store, name) for name in ("web", "worker", "jobs")}
    other = pushed(store, "unreleased")
    fields = {"commit": "c" * 40, **images["web"], "images": images}
    pipeline = Pipeline.objects.create(
        project=project, number=1, ref="refs/heads/main", state=State.PASSED, **fields
    )
    release = Release.objects.create(project=project, number=1, pipeline=pipeline, **fields)

    def left() -> list[str]:
        age(store)
        workshop.prune()
        return sorted(name.partition("@")[0] for name in store.names())

    assert other["repository"] not in left()
    assert left() == sorted(image["repository"] for image in images.values())
    release.removed_at = timezone.now()
    release.save()
    assert left() == []
