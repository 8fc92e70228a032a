"""What the names in a store mean, for people: nothing counts as used because it was looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from builders.images.disk import Disk, read_json


@dataclass(frozen=True, slots=True)
class Listed:
    """One name. ``platform`` is empty for this machine's own, ``created`` is RFC 3339 or empty,
    ``size`` the bytes of all layers' tars."""

    name: str
    platform: str
    id: str
    created: str
    size: int


def listed(disk: Disk) -> list[Listed]:
    """By name, then platform. An image of which something is lost is left out."""
    return sorted(_listed(disk), key=lambda one: (one.name, one.platform))


def _listed(disk: Disk) -> Iterator[Listed]:
    for path in (disk.root / "names").iterdir():
        record = read_json(path)
        config = record and read_json(disk.path("blobs", record["image"]))
        if not record or not config:
            continue
        layers = [
            read_json(disk.path("layers", diff_id) / "layer.json")
            for diff_id in config["rootfs"]["diff_ids"]
        ]
        if all(layers):
            size = sum(layer["size"] for layer in layers if layer)
            name, platform = record["name"], record.get("platform") or ""
            yield Listed(name, platform, record["image"], config.get("created") or "", size)
