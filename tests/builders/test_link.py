"""COPY --link: a layer of its own, whatever it is put upon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from builders.errors import UserError
from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.plan import host_platform
from tests.builders.conftest import IDS, Builder

pytestmark = pytest.mark.root
Project = Callable[[Mapping[str, str]], Path]


def test_the_layer_and_its_cache_entry_are_the_same_upon_any_image(
    builder: Builder, project: Project
) -> None:
    """Another base, made at another time, and another instruction before it."""
    text = "COPY --link --chown=5:6 f /deep/er/\n"
    older = ImageConfig(
        architecture=host_platform().partition("/")[2], created="2001-01-01T00:00:00Z"
    )
    base = builder.resolve(Reference.parse("busybox"))
    builder.store.save_image(older, base.layers, names=[Reference.parse("older:1")])
    files = {"f": "same\n"}
    first = builder.one(project({**files, "Dockerfile": f"FROM busybox\n{text}"}))
    context = project({"Dockerfile": f"FROM older:1\nRUN echo x > /y\n{text}"})
    second, seen = builder.all(context)
    assert second[None].layers[-1] == first.layers[-1]
    assert text.strip() in seen.cached()
    third = builder.one(context, no_cache=True)
    assert third.layers[-1] == first.layers[-1]
    fourth = builder.one(project({"Dockerfile": f"FROM scratch\n{text}"}))
    assert fourth.layers == first.layers[-1:]


def test_names_of_owners_are_still_the_stages_own(builder: Builder, project: Project) -> None:
    files = {"f": "x", "Dockerfile": "FROM busybox\nCOPY --link --chown=alice:staff f /f\n"}
    image = builder.one(project(files))
    with builder.store.rootfs(image.layers[-1:], ids=IDS, bare=True) as rootfs:
        status = (rootfs.path / "f").stat()
    assert (status.st_uid - IDS.base, status.st_gid - IDS.base) == (1000, 50)
    with pytest.raises(UserError, match=r"^Dockerfile:2: The image has no user 'bob'"):
        builder.one(project({"Dockerfile": "FROM busybox\nCOPY --link --chown=bob f /f\n"}))


def test_a_link_in_the_destination_is_replaced_and_not_followed(
    builder: Builder, project: Project
) -> None:
    """As BuildKit says of --link: it may not look at what is below."""
    lines = "FROM busybox\nRUN mkdir /real && ln -s /real /to\nCOPY --link f /to/\n"
    image = builder.one(project({"f": "x", "Dockerfile": lines}))
    with builder.store.rootfs(image.layers, ids=IDS, bare=True) as rootfs:
        assert not (rootfs.path / "to").is_symlink()
        assert (rootfs.path / "to/f").read_text() == "x"
        assert list((rootfs.path / "real").iterdir()) == []
