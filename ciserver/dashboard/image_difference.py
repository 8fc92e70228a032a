"""The difference of two images: files, packages, variables, labels, settings, size."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from ciserver.dashboard import listing
from ciserver.dashboard.images import variables
from ciserver.dashboard.models import ImageLayer, ImageRecord
from ciserver.releases.preview import Change

MOST_FILES = 200  # that are named
PYTHON = re.compile(r"(?:^|/)([^/]+)-([^/-]+)\.dist-info/METADATA\Z")


@dataclass(frozen=True, slots=True)
class FileChange:
    """``grown`` is in bytes; ``sign`` is "+", "-" or "~"."""

    sign: str
    path: str
    grown: int


@dataclass(frozen=True, slots=True)
class Difference:
    """From ``old`` to ``new``. ``count`` of changed files by sign, the largest are in ``files``;
    ``packages`` by kind."""

    old: ImageRecord
    new: ImageRecord
    same: list[ImageLayer]  # layers at the bottom that both have
    fresh: list[ImageLayer]
    gone: list[ImageLayer]
    files: list[FileChange]
    count: dict[str, int]
    packages: dict[str, list[Change]]
    variables: list[Change]
    labels: list[Change]
    settings: list[Change]
    unread: bool  # a layer could not be looked through: files and packages are not all

    @property
    def changed_files(self) -> int:
        return sum(self.count.values())

    @property
    def travels(self) -> int:
        """Compressed bytes that a host with ``old`` needs for ``new``."""
        return sum(row.layer.size for row in self.fresh)

    @property
    def grown(self) -> int:
        return self.new.size - self.old.size


def between(old: ImageRecord, new: ImageRecord) -> Difference:
    """Reads the listings of those layers alone that the two do not share from the bottom up,
    and of the shared ones what the others lie upon."""
    before, after = (list(one.layers.select_related("layer")) for one in (old, new))
    pairs = zip(before, after, strict=False)
    same = [b for _, b in takewhile(lambda pair: pair[0].layer_id == pair[1].layer_id, pairs)]
    there = {row.layer_id for row in before}
    here = {row.layer_id for row in after}
    old_files, new_files = _files(before), _files(after)
    files, count = _changed(old_files, new_files)
    old_packages, new_packages = _packages(before, old_files), _packages(after, new_files)
    told = {
        kind: changes(old_packages.get(kind, {}), new_packages.get(kind, {}))
        for kind in sorted(old_packages.keys() | new_packages.keys())
    }
    return Difference(
        old=old,
        new=new,
        same=same,
        fresh=[row for row in after if row.layer_id not in there],
        gone=[row for row in before if row.layer_id not in here],
        files=files,
        count=count,
        packages={kind: rows for kind, rows in told.items() if rows},
        variables=changes(_variables(old), _variables(new)),
        labels=changes(_labels(old), _labels(new)),
        settings=changes(_settings(old), _settings(new)),
        unread=any(row.layer.trouble for row in (*before, *after)),
    )


def _files(rows: list[ImageLayer]) -> dict[str, listing.File]:
    return listing.flatten(listing.unpacked(row.layer.listing) for row in rows)[0]


def _changed(
    old: dict[str, listing.File], new: dict[str, listing.File]
) -> tuple[list[FileChange], dict[str, int]]:
    found = [FileChange("+", path, new[path][0]) for path in new.keys() - old.keys()]
    found += [FileChange("-", path, -old[path][0]) for path in old.keys() - new.keys()]
    found += [
        FileChange("~", path, new[path][0] - old[path][0])
        for path in new.keys() & old.keys()
        if new[path] != old[path]
    ]
    count = {sign: sum(one.sign == sign for one in found) for sign in "+-~"}
    found.sort(key=lambda one: (-abs(one.grown), one.path))
    return found[:MOST_FILES], count


def _packages(rows: list[ImageLayer], files: Iterable[str]) -> dict[str, dict[str, str]]:
    """By kind. The uppermost layer that has a database has all of it; Python has files alone."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found |= row.layer.packages
    python = (PYTHON.search(path) for path in files)
    if names := {one[1].lower(): one[2] for one in python if one}:
        found["python"] = names
    return found


def changes(old: dict[str, str], new: dict[str, str]) -> list[Change]:
    """The names whose values differ."""
    names = sorted(old.keys() | new.keys())
    return [
        Change(name, old.get(name), new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    ]


def _variables(image: ImageRecord) -> dict[str, str]:
    pairs = (one.partition("=") for one in variables(image))
    return {name: value for name, _, value in pairs}


def _labels(image: ImageRecord) -> dict[str, str]:
    return dict(image.labels.values_list("name", "value"))


def _settings(image: ImageRecord) -> dict[str, str]:
    return {key: shown(value) for key, value in image.config.items() if key != "Env"}


def shown(value: Any) -> str:
    """A value of an image's config in one line."""
    if isinstance(value, dict):
        return " ".join(value)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
