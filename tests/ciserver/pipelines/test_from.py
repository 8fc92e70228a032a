"""What FROM may name: no other project's image, and nothing that only this machine can reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builders.errors import ImageNotFound
from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.images.store import Store
from builders.registry import Registry
from builders.resolve import Resolver
from ciserver.pipelines.runner.workshop import Workshop
from runtime.state import StateDirectory

pytestmark = pytest.mark.root


@pytest.fixture
def workshop(settings: Any, tmp_path: Path) -> Workshop:
    store = Store(tmp_path / "store")
    return Workshop(
        config=settings.GANTRY,
        store=store,
        state=StateDirectory(tmp_path / "sandboxes"),
        registry=Registry(settings.GANTRY.registry),
        resolver=Resolver(store, upstream=False),
    )


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:1", "169.254.169.254", "10.0.0.1:5000"])
def test_a_registry_that_only_this_machine_can_reach_is_not_asked(
    workshop: Workshop, project: Any, host: str
) -> None:
    with pytest.raises(ImageNotFound, match="is this machine, or in a network that is not public"):
        workshop.resolver_for(project)(Reference.parse(f"{host}/secret:x"))


def test_another_projects_image_is_refused(workshop: Workshop, project: Any) -> None:
    name = f"{workshop.config.registry}/other:latest"
    with pytest.raises(ImageNotFound, match="is not one of hello"):
        workshop.resolver_for(project)(Reference.parse(name))


def test_what_is_in_the_store_needs_no_registry(workshop: Workshop, project: Any) -> None:
    name = Reference.parse("10.0.0.1:5000/team/base:1")
    image = workshop.store.save_image(ImageConfig(architecture="amd64"), [], names=[name])
    assert workshop.resolver_for(project)(name).id == image.id
