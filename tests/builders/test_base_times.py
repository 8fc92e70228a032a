"""A base image may claim to be of any time: what is built upon it is one that can be pushed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from builders.images.reference import Reference
from tests.builders.conftest import Builder

pytestmark = pytest.mark.root
Project = Callable[[Mapping[str, str]], Path]


@pytest.mark.parametrize(
    "created",
    [None, "", "garbage", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2500-01-01T00:00:00Z",
     "9999-12-31T23:59:59Z", "99999-01-01T00:00:00Z"],
)  # fmt: skip
def test_layers_upon_it_are_what_their_tar_says(
    builder: Builder, project: Project, created: str | None
) -> None:
    base = builder.store.find_image(Reference.parse("busybox"))
    assert base is not None
    builder.store.save_image(
        replace(base.config, created=created), base.layers, names=[Reference.parse("odd:time")]
    )
    text = f"FROM odd:time\nCOPY a /a\nRUN echo {created} > /b; touch -d @20000000000 /c || true\n"
    image = builder.one(project({"Dockerfile": text, "a": "1"}), no_cache=True)
    for layer in image.layers[1:]:
        assert builder.store.blob(layer).size > 0  # made anew from the tree: must be the same tar
