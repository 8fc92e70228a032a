"""Manifests and indexes: built for pushing, parsed with suspicion when pulled.

Image-spec manifest.md and image-index.md; docker's schema 2 has the same shape.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builders.images.digests import (
    COMPRESSIONS,
    CONFIGS,
    INDEXES,
    MANIFESTS,
    OCI_MANIFEST,
    Descriptor,
    sha256,
)
from builders.images.documents import (
    Malformed,
    as_list,
    as_object,
    load_object,
    optional_object,
    text,
)

MOST_LAYERS = 500
_MACHINES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_VARIANTS = {"amd64": "v1", "arm": "v7", "arm64": "v8"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its exact bytes, and what they name."""

    media_type: str
    data: bytes
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def digest(self) -> str:
        return sha256(self.data)


@dataclass(frozen=True, slots=True)
class Platform:
    """An index's entry: ``architecture`` as Go spells it (amd64, arm64)."""

    os: str
    architecture: str
    variant: str
    manifest: Descriptor


def host_architecture() -> str:
    """This machine's architecture as images spell it."""
    machine = platform.machine()
    return _MACHINES.get(machine, machine)


def build_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> Manifest:
    """The OCI manifest of an image: the same parts give the same bytes."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return Manifest(OCI_MANIFEST, data, config, tuple(layers))


def parse(
    data: bytes, content_type: str, *, configs: Collection[str] = CONFIGS
) -> Manifest | tuple[Platform, ...]:
    """Read what a registry sent as ``content_type``. Raises Malformed.

    ``configs`` are the types that its config may be of: an image's, unless told.

    The type must not be ambiguous: a document that can be read both as an image and as an
    index is refused (CVE-2021-41190), and so is one whose own type differs from the header's.
    """
    document = load_object(data, "the manifest")
    stated = text(document, "mediaType")
    kind = content_type.partition(";")[0].strip() or stated
    if stated and stated != kind:
        raise Malformed(f"the manifest calls itself {stated} but was sent as {kind}")
    if document.get("schemaVersion") != 2:
        raise Malformed(f"the manifest has the schema version {document.get('schemaVersion')!r}")
    if kind in INDEXES:
        _refuse(document, kind, ("config", "layers", "fsLayers"))
        return _parse_index(document)
    if kind in MANIFESTS:
        _refuse(document, kind, ("manifests", "fsLayers"))
        return _parse_manifest(document, data, kind, configs)
    raise Malformed(f"the manifest is of the type {kind or 'none'}, which is no image")


def _refuse(document: Mapping[str, Any], kind: str, keys: Sequence[str]) -> None:
    for key in keys:
        if key in document:
            raise Malformed(f"the manifest is sent as {kind} but has {key!r} as well")


def _parse_manifest(
    document: Mapping[str, Any], data: bytes, kind: str, configs: Collection[str]
) -> Manifest:
    config = Descriptor.from_json(document.get("config"))
    if config.media_type not in configs:
        raise Malformed(f"its config is of the type {config.media_type!r}: this is no image")
    entries = as_list(document.get("layers"), "layers")
    if len(entries) > MOST_LAYERS:
        raise Malformed(f"it has {len(entries)} layers, more than {MOST_LAYERS}")
    layers = tuple(Descriptor.from_json(entry) for entry in entries)
    for layer in layers:
        if layer.media_type not in COMPRESSIONS:
            raise Malformed(f"a layer is of the type {layer.media_type!r}, which is not supported")
    return Manifest(kind, data, config, layers)


def _parse_index(document: Mapping[str, Any]) -> tuple[Platform, ...]:
    found = []
    for entry in as_list(document.get("manifests"), "manifests"):
        where = optional_object(as_object(entry, "an entry").get("platform"), "platform")
        found.append(
            Platform(
                text(where, "os"),
                text(where, "architecture"),
                text(where, "variant"),
                Descriptor.from_json(entry),
            )
        )
    return tuple(found)


def choose(platforms: Sequence[Platform], platform: str) -> Platform | None:
    """The index's entry for ``platform`` (``linux/arm/v6``), or None.

    Where no variant is asked for, the usual one is taken before others (containerd's platforms).
    """
    system, architecture, variant = (*platform.split("/"), "")[:3]
    fits = [
        entry for entry in platforms if (entry.os, entry.architecture) == (system, architecture)
    ]
    if variant:
        return next((entry for entry in fits if entry.variant == variant), None)
    usual = ("", _VARIANTS.get(architecture, ""))
    return min(fits, key=lambda entry: entry.variant not in usual, default=None)
