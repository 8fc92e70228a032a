"""Pushing to and pulling from a real registry moves each byte once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from builders.errors import ImageNotFound, RegistryError
from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.registry import Registry
from tests.builders.images.test_store import a_layer
from tests.builders.images.trees import describe
from tests.builders.registry.conftest import RegistryProcess, free_port
from tests.together import together

pytestmark = pytest.mark.root


def test_what_was_pushed_is_pulled_as_the_same_image(
    registry: str, client: Registry, image: Image, store: Store, other: Store
) -> None:
    name = Reference.parse(f"{registry}/same/app:v1")
    pushed = client.push(image, name, store)
    found = client.pull(name, other)
    assert found.id == image.id
    assert found.config == image.config
    assert found.manifest().digest == pushed.digest == image.manifest().digest
    assert [layer.diff_id for layer in found.layers] == [layer.diff_id for layer in image.layers]
    for ours, theirs in zip(image.layers, found.layers, strict=True):
        assert describe(theirs.tree) == describe(ours.tree, base=ours.base)
    assert other.find_image(name) == found
    assert other.find_image(name.with_digest(pushed.digest)) == found


def test_a_second_push_sends_nothing(
    registry: str, client: Registry, image: Image, store: Store
) -> None:
    lines: list[str] = []
    total = sum(layer.size for layer in image.manifest().layers) + image.manifest().config.size
    first = client.push(image, Reference.parse(f"{registry}/twice/app:v1"), store)
    assert (first.bytes_sent, first.bytes_existing) == (total, 0)
    again = client.push(
        image, Reference.parse(f"{registry}/twice/app:v2"), store, upload_log=lines.append
    )
    assert (again.bytes_sent, again.bytes_existing) == (0, total)
    assert again.digest == first.digest
    assert len(lines) == 3
    assert all("already there" in line for line in lines)


def test_a_name_that_has_the_image_already_is_not_given_to_it_again(
    registry: str, client: Registry, image: Image, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, request = "PUT /v2/named/app/manifests/v1", client._transport.request
    asked: list[str] = []

    def noted(method: str, path: str, *rest: Any, **more: Any) -> Any:
        asked.append(f"{method} {path}")
        return request(method, path, *rest, **more)

    name = Reference.parse(f"{registry}/named/app:v1")
    monkeypatch.setattr(client._transport, "request", noted)
    digest = client.push(image, name, store).digest
    assert asked.count(put) == 1

    # As after a worker that died between the push and writing down that it was done.
    assert client.push(image, name, store).digest == digest
    assert asked.count(put) == 1
    newer = store.save_image(image.config, [*image.layers, a_layer(store, "another")])
    assert client.push(newer, name, store).digest != digest
    assert asked.count(put) == 2


def test_only_the_new_layer_of_a_new_version_travels(
    registry: str, client: Registry, image: Image, store: Store
) -> None:
    client.push(image, Reference.parse(f"{registry}/next/app:v1"), store)
    added = a_layer(store, "a new version")
    newer = store.save_image(image.config, [*image.layers, added])
    result = client.push(newer, Reference.parse(f"{registry}/next/app:v2"), store)
    manifest = newer.manifest()
    assert result.bytes_sent == store.blob(added).size + manifest.config.size


def test_layers_that_a_sibling_repository_has_are_mounted_and_not_sent(
    registry: str, client: Registry, image: Image, store: Store
) -> None:
    client.push(image, Reference.parse(f"{registry}/sibling/one:v1"), store)
    lines: list[str] = []
    result = client.push(
        image, Reference.parse(f"{registry}/sibling/two:v1"), store, upload_log=lines.append
    )
    assert result.bytes_sent == 0
    assert all("taken from another repository" in line for line in lines)


def test_a_sibling_that_no_longer_has_the_blob_costs_only_the_upload(
    registry: str, client: Registry, image: Image, store: Store
) -> None:
    for layer in image.manifest().layers:
        store.remember_source(layer.digest, f"{registry}/never/there")
    result = client.push(image, Reference.parse(f"{registry}/unmounted/app:v1"), store)
    assert result.bytes_sent > 0


def test_blobs_can_go_ahead_and_no_tag_shows_before_the_manifest(
    registry: str, client: Registry, image: Image, store: Store, other: Store
) -> None:
    name = Reference.parse(f"{registry}/early/app:v1")
    early = client.push_blob(image.layers[0], name, store)
    assert early.bytes_sent == store.blob(image.layers[0]).size
    client.push_blobs(image, name, store)
    with pytest.raises(ImageNotFound):
        client.pull(name, other)
    client.push_manifest(image, name, store)
    assert client.pull(name, other).id == image.id


def test_an_image_without_layers_and_one_with_the_same_layer_twice_travel(
    registry: str, client: Registry, store: Store, other: Store
) -> None:
    layer = a_layer(store)
    for number, layers in enumerate(([], [layer, layer])):
        image = store.save_image(ImageConfig(architecture="amd64", user=str(number)), layers)
        name = Reference.parse(f"{registry}/odd/app:v{number}")
        client.push(image, name, store)
        assert client.pull(name, other).id == image.id


def test_layers_that_are_here_do_not_travel_when_pulled(
    registry: str, client: Registry, image: Image, store: Store
) -> None:
    name = Reference.parse(f"{registry}/here/app:v1")
    client.push(image, name, store)
    lines: list[str] = []
    found = client.pull(name, store, progress=lines.append)
    assert lines == []
    assert found.id == image.id


def test_pulling_by_digest_gives_that_image_after_the_tag_moved(
    registry: str, client: Registry, image: Image, store: Store, other: Store
) -> None:
    name = Reference.parse(f"{registry}/moved/app:v1")
    first = client.push(image, name, store)
    client.push(store.save_image(image.config, [a_layer(store, "x")]), name, store)
    assert client.pull(name.with_digest(first.digest), other).id == image.id
    assert client.pull(name, other).id != image.id


def test_a_missing_image_is_said_to_be_missing(
    registry: str, client: Registry, other: Store
) -> None:
    with pytest.raises(ImageNotFound, match=f"{registry} has no image {registry}/no/such:v1"):
        client.pull(Reference.parse(f"{registry}/no/such:v1"), other)


def test_an_unreachable_registry_is_named_with_how_long_it_was_tried(other: Store) -> None:
    host = f"127.0.0.1:{free_port()}"
    with Registry(host, patience=1.0) as client:
        with pytest.raises(RegistryError, match=rf"{host} cannot be used: .*tried \d times in"):
            client.pull(Reference.parse(f"{host}/x/y"), other)


def test_many_threads_push_and_pull_at_once(
    registry: str, client: Registry, image: Image, store: Store, tmp_path: Path
) -> None:
    def go(number: int) -> None:
        name = Reference.parse(f"{registry}/many/app{number}:v1")
        client.push(image, name, store)
        client.pull(name, Store(tmp_path / "shared"))

    together(go, range(6))


def test_a_registry_that_starts_late_is_waited_for(
    image: Image, store: Store, tmp_path: Path
) -> None:
    port = free_port()
    started: list[RegistryProcess] = []
    timer = threading.Timer(0.7, lambda: started.append(RegistryProcess(tmp_path, port=port)))
    timer.start()
    host = f"127.0.0.1:{port}"
    try:
        with Registry(host, patience=20) as client:
            assert client.push(image, Reference.parse(f"{host}/late/app:v1"), store).digest
    finally:
        timer.join()
        started[0].close()
