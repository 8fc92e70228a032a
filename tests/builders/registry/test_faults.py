"""Registries that falter: retried within bounds, resumed, and never left with a half image."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from builders.errors import RegistryError
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.registry import Registry
from tests.builders.registry.liar import Answer, Liar, Seen, running, serving

pytestmark = pytest.mark.root


@pytest.fixture
def liar(image: Image, store: Store) -> Iterator[Liar]:
    with running(serving(image, store)) as liar:
        yield liar


def named(liar: Liar) -> Reference:
    return Reference.parse(f"{liar.host}/a/b:v1")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_trouble_is_tried_again(
    status: int, liar: Liar, image: Image, other: Store
) -> None:
    liar.lie = lambda _: Answer(status) if len(liar.seen) == 1 else None
    with Registry(liar.host, patience=5) as client:
        assert client.pull(named(liar), other).id == image.id


def test_a_lasting_trouble_ends_in_time_with_the_registrys_own_words(
    liar: Liar, other: Store
) -> None:
    words = b'{"errors": [{"code": "UNAVAILABLE", "message": "disk full"}]}'
    liar.lie = lambda _: Answer(503, words)
    started = time.monotonic()
    with Registry(liar.host, patience=2) as client:
        with pytest.raises(RegistryError, match=r"answers 503 \(UNAVAILABLE: disk full\) \(tried"):
            client.pull(named(liar), other)
    assert time.monotonic() - started < 4


def test_a_registry_that_asks_to_wait_is_obeyed_within_bounds(
    liar: Liar, image: Image, other: Store
) -> None:
    def lie(_: Seen) -> Answer | None:
        return Answer(429, headers={"Retry-After": "1"}) if len(liar.seen) == 1 else None

    liar.lie = lie
    started = time.monotonic()
    with Registry(liar.host, patience=5) as client:
        client.pull(named(liar), other)
    assert time.monotonic() - started >= 1
    liar.lie = lambda _: Answer(429, headers={"Retry-After": "99999"})
    with Registry(liar.host, patience=2) as client:
        with pytest.raises(RegistryError):
            client.pull(Reference.parse(f"{liar.host}/a/b:v2"), other)


def test_a_registry_that_hangs_is_given_up(liar: Liar, other: Store) -> None:
    def lie(_: Seen) -> Answer | None:
        time.sleep(1.5)
        return Answer(500)

    liar.lie = lie
    started = time.monotonic()
    with Registry(liar.host, patience=1, timeout=0.3) as client:
        with pytest.raises(RegistryError, match="cannot be used"):
            client.pull(named(liar), other)
    assert time.monotonic() - started < 5


def test_a_layer_that_breaks_off_is_taken_up_where_it_broke(
    liar: Liar, image: Image, other: Store
) -> None:
    broken: set[str] = set()
    layers = {layer.digest for layer in image.manifest().layers}

    def lie(seen: Seen) -> Answer | None:
        digest = seen.path.rpartition("/")[2]
        if digest not in layers or digest in broken:
            return None
        broken.add(digest)
        data = liar.blobs[digest]
        return Answer(200, data[:30], length=len(data))

    liar.lie = lie
    with Registry(liar.host, patience=5) as client:
        assert client.pull(named(liar), other).id == image.id
    ranges = [seen.headers["range"] for seen in liar.seen if "range" in seen.headers]
    assert ranges == ["bytes=30-", "bytes=30-"]


def test_an_upload_that_fails_is_started_anew(liar: Liar, image: Image, store: Store) -> None:
    liar.blobs = {}
    failed: list[str] = []

    def lie(seen: Seen) -> Answer | None:
        if seen.method == "PUT" and "upload" in seen.path and len(failed) < 3:
            failed.append(seen.path)
            return Answer((500, 404, 503)[len(failed) - 1])
        return None

    liar.lie = lie
    with Registry(liar.host, patience=5) as client:
        sent = client.push_blobs(image, named(liar), store)
    assert sent.bytes_sent > 0
    uploads = [seen.path for seen in liar.seen if seen.method == "PUT"]
    assert len(uploads) == 6
    assert len(set(uploads)) == 6  # each try is an upload of its own


def test_an_upload_that_never_works_fails_and_no_manifest_is_pushed(
    liar: Liar, image: Image, store: Store
) -> None:
    liar.blobs = {}
    liar.lie = lambda seen: Answer(500) if seen.method == "PUT" else None
    with Registry(liar.host, patience=1) as client:
        with pytest.raises(RegistryError):
            client.push(image, named(liar), store)
    assert not [seen for seen in liar.seen if "/manifests/" in seen.path]


def test_a_manifest_kept_under_another_digest_is_an_error(
    liar: Liar, image: Image, store: Store
) -> None:
    wrong = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    liar.lie = lambda seen: (
        Answer(201, headers=wrong) if "/manifests/" in seen.path and seen.method == "PUT" else None
    )
    with Registry(liar.host, patience=1) as client:
        with pytest.raises(RegistryError, match="kept the manifest"):
            client.push(image, named(liar), store)


def test_the_manifest_is_the_last_thing_pushed(liar: Liar, image: Image, store: Store) -> None:
    liar.blobs = {}
    with Registry(liar.host, patience=1) as client:
        client.push(image, named(liar), store)
    assert liar.paths()[-1] == "PUT /v2/a/b/manifests/v1"
    assert sum("PUT" in path and "/manifests/" in path for path in liar.paths()) == 1
