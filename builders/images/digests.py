"""Digests, descriptors and the media types this builder reads and writes.

Image-spec: descriptor.md and media-types.md. Only sha256 is in use anywhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builders.images.documents import Malformed, as_object, text, text_map

DIGEST_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
OCI_LAYER_ZSTD = f"{OCI_LAYER}+zstd"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = f"{DOCKER_LAYER}.gzip"

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
COMPRESSIONS: Mapping[str, str] = {
    OCI_LAYER: "none",
    DOCKER_LAYER: "none",
    OCI_LAYER_GZIP: "gzip",
    DOCKER_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
}


def sha256(data: bytes) -> str:
    """The digest of ``data`` in its spelled form, ``sha256:...``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check_digest(value: object) -> str:
    """``value`` if it is a well-formed sha256 digest, which also makes it safe in a path.

    Raises Malformed.
    """
    if not isinstance(value, str) or not DIGEST_PATTERN.fullmatch(value):
        raise Malformed(f"{value!r} is not a sha256 digest")
    return value


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Names content by type, digest and size in bytes (descriptor.md)."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value

    @classmethod
    def from_json(cls, value: object) -> Descriptor:
        """Raises Malformed. ``urls`` (foreign layers) are refused: they send readers elsewhere."""
        entry = as_object(value, "a descriptor")
        size = entry.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise Malformed(f"a descriptor has the size {size!r}")
        if entry.get("urls"):
            raise Malformed("a descriptor sends its readers to other URLs (a foreign layer)")
        digest = check_digest(entry.get("digest"))
        return cls(text(entry, "mediaType"), digest, size, text_map(entry, "annotations"))
