"""Every folder of tests/cases/dockerfiles is built and compared with what docker made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from builders.errors import BuildError
from builders.images.reference import Reference
from runtime.spec import Network
from tests.builders.cases import Case, all_cases
from tests.builders.conftest import IDS, Builder
from tests.builders.flatten import Tree, config_part, difference, tree_on_disk

GOOD = [case for case in all_cases() if case.error is None]
BAD = [case for case in all_cases() if case.error is not None]


@contextmanager
def asked(case: Case) -> Iterator[dict[str, Any]]:
    options = case.options
    with case.web() as place, case.keys() as keys:
        web = {"network": Network.EGRESS, "egress_allow": [place]} if place else {}
        yield {
            "targets": (options.get("target"),),
            "build_args": case.build_args | ({"WEB": f"http://{place}"} if place else {}),
            "labels": options.get("labels", {}),
            "secrets": {key: text.encode() for key, text in options.get("secrets", {}).items()},
            "ssh": keys,
            "dockerfile": options.get("dockerfile", "Dockerfile"),
            **web,
        }


@pytest.fixture(scope="session")
def base_tree(shared_builder: Builder) -> Tree:
    image = shared_builder.store.find_image(Reference.parse("busybox"))
    assert image is not None
    with shared_builder.store.rootfs(image.layers, ids=IDS, bare=True) as rootfs:
        return tree_on_disk(rootfs.path, IDS.base)


@pytest.mark.root
@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_the_image_is_the_one_docker_makes(
    case: Case, builder: Builder, base_tree: Tree, tmp_path: Path
) -> None:
    context = case.lay_out(tmp_path / "context")
    with asked(case) as words:
        images, _ = builder.all(context, **words)
    (image,) = images.values()
    with builder.store.rootfs(image.layers, ids=IDS, bare=True) as rootfs:
        tree = tree_on_disk(rootfs.path, IDS.base)
    on_busybox = image.layers[:1] == builder.resolve(Reference.parse("busybox")).layers
    document = json.loads(image.config.to_json())
    made = {
        "config": config_part(document, on_base=on_busybox),
        "tree": difference(tree, base_tree if on_busybox else {}),
    }
    assert made == json.loads(case.expected.read_text())


@pytest.mark.root
@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_the_mistake_is_one_sentence_and_its_line_with_a_caret(
    case: Case, builder: Builder, tmp_path: Path
) -> None:
    context = case.lay_out(tmp_path / "context")
    with asked(case) as words, pytest.raises(BuildError) as caught:
        builder.all(context, **words)
    error = caught.value
    sentence = f"{error.where}{str(error).removeprefix(error.place)}"
    assert "\n".join(filter(None, [sentence, error.excerpt])) == case.error
