"""Manifests are deterministic when built and unambiguous when read (CVE-2021-41190)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builders.images.digests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
)
from builders.images.documents import Malformed
from builders.images.manifest import Manifest, Platform, build_manifest, choose, parse

CONFIG = Descriptor(OCI_CONFIG, "sha256:" + "c" * 64, 10)
LAYER = Descriptor(OCI_LAYER_GZIP, "sha256:" + "1" * 64, 20)


def document(**changes: Any) -> bytes:
    value = json.loads(build_manifest(CONFIG, [LAYER]).data)
    value.update(changes)
    return json.dumps({k: v for k, v in value.items() if v is not None}).encode()


def test_a_built_manifest_reads_back_as_itself() -> None:
    made = build_manifest(CONFIG, [LAYER, LAYER])
    assert parse(made.data, OCI_MANIFEST) == made
    assert build_manifest(CONFIG, [LAYER, LAYER]).digest == made.digest


def test_the_content_type_may_carry_parameters_and_the_document_no_type() -> None:
    found = parse(document(mediaType=None), f"{OCI_MANIFEST}; charset=utf-8")
    assert isinstance(found, Manifest)
    assert found.layers == (LAYER,)


@pytest.mark.parametrize(
    ("data", "content_type", "word"),
    [
        (document(), OCI_INDEX, "calls itself"),
        (document(mediaType=None), OCI_INDEX, "as well"),
        (document(manifests=[]), OCI_MANIFEST, "as well"),
        (document(fsLayers=[]), OCI_MANIFEST, "as well"),
        (document(), DOCKER_MANIFEST, "calls itself"),
        (document(), "text/html", "calls itself"),
        (document(mediaType=None), "", "type none"),
        (document(schemaVersion=1), OCI_MANIFEST, "schema version"),
        (document(layers={"a": 1}), OCI_MANIFEST, "not a list"),
        (document(layers=[LAYER.to_json()] * 501), OCI_MANIFEST, "501 layers"),
        (document(config={**CONFIG.to_json(), "mediaType": "a/b"}), OCI_MANIFEST, "no image"),
        (document(layers=[{**LAYER.to_json(), "size": -1}]), OCI_MANIFEST, "size"),
        (document(layers=[{**LAYER.to_json(), "size": True}]), OCI_MANIFEST, "size"),
        (document(layers=[{**LAYER.to_json(), "digest": "../x"}]), OCI_MANIFEST, "digest"),
        (document(layers=[{**LAYER.to_json(), "urls": ["http://x/"]}]), OCI_MANIFEST, "foreign"),
        (document(layers=[{**LAYER.to_json(), "mediaType": "a/b"}]), OCI_MANIFEST, "supported"),
        (b"{" * 10, OCI_MANIFEST, "not JSON"),
    ],
)
def test_a_manifest_that_could_mean_two_things_or_nothing_is_refused(
    data: bytes, content_type: str, word: str
) -> None:
    with pytest.raises(Malformed, match=word):
        parse(data, content_type)


def test_an_index_gives_the_entry_of_an_architecture() -> None:
    entries = [
        {**LAYER.to_json(), "platform": {"os": "linux", "architecture": arch}}
        for arch in ("arm64", "amd64")
    ]
    unknown = {**LAYER.to_json(), "platform": {"os": "unknown", "architecture": "unknown"}}
    data = json.dumps({"schemaVersion": 2, "manifests": [unknown, *entries]}).encode()
    for kind in (OCI_INDEX, DOCKER_LIST):
        found = parse(data, kind)
        assert isinstance(found, tuple)
        entry = choose(found, "linux/amd64")
        assert entry is not None
        assert entry.architecture == "amd64"
        assert choose(found, "linux/riscv64") is None


def test_an_index_gives_the_usual_variant_where_none_is_asked_for() -> None:
    entries = [Platform("linux", "arm", variant, LAYER) for variant in ("v5", "v7", "v6")]
    found = {ask: choose(entries, ask) for ask in ("linux/arm", "linux/arm/v6", "linux/arm/v8")}
    variants = {ask: entry and entry.variant for ask, entry in found.items()}
    assert variants == {"linux/arm": "v7", "linux/arm/v6": "v6", "linux/arm/v8": None}
    assert choose(entries[:1], "linux/arm") == entries[0]
