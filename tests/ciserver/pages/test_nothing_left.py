"""A project that has one of everything goes with all of it, and takes nothing of another's."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.utils import timezone

from ciserver.dashboard import image_reading
from ciserver.dashboard.models import ImageRecord
from ciserver.pipelines.models import Pipeline, State
from ciserver.projects.models import Project
from ciserver.releases import archiving, removal
from ciserver.releases.models import Environment, Running
from tests.ciserver.access.matrix import Who
from tests.ciserver.access.test_matrix import world  # noqa: F401 - a fixture
from tests.ciserver.pages.seeded_images import make_image
from tests.ciserver.pages.seeding import make_pipeline
from tests.ciserver.releases.test_garbage import ours  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db
# Whose rows are nobody's project's, or stay for administrators.
OTHERS = {
    "accounts.auditentry", "accounts.team", "accounts.user", "auth.permission",
    "contenttypes.contenttype", "releases.host",
}  # fmt: skip


def rows() -> dict[str, set[Any]]:
    """The keys of all rows, by the name of their model; without those of no project."""
    found = {one._meta.label_lower: one for one in apps.get_models()}
    return {
        name: keys
        for name, model in found.items()
        if name not in OTHERS and (keys := set(model._default_manager.values_list("pk", flat=True)))
    }


def test_a_deleted_project_leaves_no_row_and_another_keeps_all_of_its_own(
    ours: Any,  # noqa: F811 - the fixture
    world: dict[str, Any],  # noqa: F811 - the fixture
    settings: Any,
) -> None:
    hello, other = (Project.objects.get(slug=slug) for slug in ("hello", "other"))
    theirs = make_pipeline(other, 1, state=State.PASSED)
    shared = make_image(theirs)  # with the layers of hello's below its own
    artifacts: Path = settings.GANTRY.artifacts
    assert list(artifacts.glob("*/*"))
    Environment.hosts.through.objects.all().delete()
    Running.objects.all().delete()  # what is on hosts: test_deploy.py
    Pipeline.objects.filter(state=State.RUNNING).update(state=State.CANCELLED)
    archiving.delete(project=hello, user=world["people"][Who.OWNER], confirm="hello", now=True)
    assert removal.delete_project(hello.pk)
    assert image_reading.forget_unused() == 0, "what was read just now may be about to be used"
    ImageRecord.objects.update(read_at=timezone.now() - timedelta(hours=2))
    assert image_reading.forget_unused() == 5
    layers = set(shared.layers.values_list("layer", flat=True))
    assert len(layers) == 3
    assert rows() == {
        "dashboard.imagelabel": set(shared.labels.values_list("pk", flat=True)),
        "dashboard.imagelayer": set(shared.layers.values_list("pk", flat=True)),
        "dashboard.imagerecord": {shared.pk},
        "dashboard.imageuse": {shared.uses.get().pk},
        "dashboard.layerrecord": layers,
        "pipelines.pipeline": {theirs.pk},
        "projects.membership": {other.memberships.get().pk},
        "projects.project": {other.pk},
    }
    assert not list(artifacts.glob("*"))
