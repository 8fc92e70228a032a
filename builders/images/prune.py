"""Pruning a store by age and size: what is in use, or cannot be had again, is never taken.

Everything hangs on images and cached steps, each with the time of its last use. Old ones go,
then, while the store is too big, those that were not used for the longest time. Layers and blobs
that nothing names any more go last, each looked at once more under its lock: work in progress
notes what it uses (``pins``), and what was used since the pruning began stays in any case.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from builders.images.disk import Disk, read_json
from builders.images.pins import Pins

CACHES = "caches"
STEPS = "steps"
_BLOCK = 4096
_DRAFT = 3600.0  # seconds after which nobody is still writing one


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneLimits:
    """``older_than`` is seconds since the last use, ``max_bytes`` what may stay; None: no limit.

    Images whose id or a manifest digest is in ``keep`` stay, whatever their age.
    """

    older_than: float | None = None
    max_bytes: int | None = None
    keep: frozenset[str] = frozenset()


@dataclass(slots=True)
class Pruned:
    """How many of each were removed, the bytes that came free, and those that are left."""

    images: int = 0
    steps: int = 0
    caches: int = 0
    layers: int = 0
    blobs: int = 0
    bytes_freed: int = 0
    bytes_left: int = 0


@dataclass(slots=True)
class _Unit:
    """Something that may go as a whole: an image, a cached step or a cache mount."""

    kind: str
    path: Path
    used: float
    needs: tuple[str, ...] = ()  # layer and blob notes
    size: int = 0  # its own bytes, without what it needs
    names: list[Path] = field(default_factory=list)


def image_note(image_id: str) -> str:
    """The name under which pins hold an image."""
    return f"image-{image_id.removeprefix('sha256:')}"


class Pruning:
    """One pass over one store; several at once do no harm."""

    def __init__(self, disk: Disk, pins: Pins, limits: PruneLimits) -> None:
        self._disk = disk
        self._pins = pins
        self._limits = limits
        self._started = time.time()
        self._sizes = self._all_sizes()
        self._needed: Counter[str] = Counter()
        self._total = sum(self._sizes.values())

    def run(self) -> Pruned:
        done = Pruned()
        self._remove_drafts()
        units, fixed = self._units()
        for unit in (*units, *fixed):
            self._needed.update(unit.needs)
        self._total += sum(unit.size for unit in units)
        # What nothing names is not counted: it goes anyway.
        self._total -= sum(self._sizes[n] for n in self._sizes if not self._needed[n])
        for unit in sorted(units, key=lambda unit: unit.used):
            if self._must_go(unit) and self._remove_unit(unit):
                setattr(done, unit.kind, getattr(done, unit.kind) + 1)
                done.bytes_freed += unit.size
                self._forget(unit)
        for note, size in self._sizes.items():
            if not self._needed[note] and self._remove(note):
                done.bytes_freed += size
                kind = "layers" if note.startswith("layer-") else "blobs"
                setattr(done, kind, getattr(done, kind) + 1)
        done.bytes_left = self._total
        return done

    def _must_go(self, unit: _Unit) -> bool:
        age, most = self._limits.older_than, self._limits.max_bytes
        if age is not None and unit.used < self._started - age:
            return True
        return most is not None and self._total > most

    def _forget(self, unit: _Unit) -> None:
        self._total -= unit.size
        for note in unit.needs:
            self._needed[note] -= 1
            if not self._needed[note]:
                self._total -= self._sizes.get(note, 0)

    # What there is

    def _all_sizes(self) -> dict[str, int]:
        """Bytes of each layer and blob by its note; a layer's files are counted in blocks."""
        sizes = {}
        for folder in self._disk.root.glob("layers/sha256/*"):
            known = read_json(folder / "layer.json") or {}
            sizes[f"layer-{folder.name}"] = int(known.get("size", 0)) + _BLOCK * int(
                known.get("files", 0)
            )
        for path in self._disk.root.glob("blobs/sha256/*"):
            with contextlib.suppress(FileNotFoundError):
                sizes[f"blob-{path.name}"] = path.stat().st_size
        return sizes

    def _units(self) -> tuple[list[_Unit], list[_Unit]]:
        """(what may go, what must stay)."""
        units: list[_Unit] = []
        fixed: list[_Unit] = []
        names = self._names()
        for path in self._disk.root.glob("images/sha256/*.json"):
            named = names.get(f"sha256:{path.stem}", [])
            with contextlib.suppress(FileNotFoundError):
                unit = _Unit("images", path, path.stat().st_mtime, self._image_needs(path))
                unit.names = [name for name, _ in named]
                stays = self._image_stays(path.stem, [record for _, record in named])
                (fixed if stays else units).append(unit)
        units += self._steps()
        units += self._caches()
        return units, fixed

    def _image_stays(self, name: str, records: Iterable[dict[str, object]]) -> bool:
        image_id = f"sha256:{name}"
        keep = self._limits.keep
        if image_id in keep or self._held(f"image-{name}", image_id):
            return True
        return any(
            not record.get("fetched") or str(record.get("name")).rpartition("@")[2] in keep
            for record in records
        )

    def _held(self, note: str, digest: str) -> bool:
        with self._disk.lock("use", digest):
            return self._pins.held(note)

    def _names(self) -> dict[str, list[tuple[Path, dict[str, object]]]]:
        names: dict[str, list[tuple[Path, dict[str, object]]]] = {}
        for path in (self._disk.root / "names").iterdir():
            record = read_json(path)
            if record is not None:
                names.setdefault(str(record.get("image")), []).append((path, record))
        return names

    def _image_needs(self, path: Path) -> tuple[str, ...]:
        record = read_json(path) or {}
        needs = [f"blob-{path.stem}"]
        if record.get("manifest"):
            needs.append(_blob(record["manifest"]))
        config = read_json(self._disk.path("blobs", f"sha256:{path.stem}")) or {}
        for diff_id in config.get("rootfs", {}).get("diff_ids", []):
            needs += self._layer_needs(diff_id)
        return tuple(needs)

    def _layer_needs(self, diff_id: str) -> list[str]:
        packed = read_json(self._disk.path("compressed", diff_id, ".json"))
        return [f"layer-{diff_id.removeprefix('sha256:')}", *([_blob(packed)] if packed else [])]

    def _steps(self) -> Iterator[_Unit]:
        for path in self._disk.root.glob(f"{STEPS}/*/*/[!.]*"):  # without those being written
            with contextlib.suppress(OSError, ValueError, AttributeError):
                diff_id = json.loads(path.read_bytes()).get("diff_id")
                needs = tuple(self._layer_needs(diff_id)) if diff_id else ()
                yield _Unit("steps", path, path.stat().st_mtime, needs)

    def _caches(self) -> Iterator[_Unit]:
        for path in self._disk.root.glob(f"{CACHES}/*/*"):
            with contextlib.suppress(OSError):
                yield _Unit("caches", path, (path / "use").stat().st_mtime, (), tree_bytes(path))

    # What goes

    def _remove_drafts(self) -> None:
        """Entries that a killed build was writing: a live one needs them for milliseconds."""
        for path in self._disk.root.glob(f"{STEPS}/*/*/.new-*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < self._started - _DRAFT:
                    path.unlink()

    def _remove_unit(self, unit: _Unit) -> bool:
        if unit.kind == "caches":
            return self._remove_cache(unit.path)
        if unit.kind == "steps":
            unit.path.unlink(missing_ok=True)
            return True
        with self._disk.lock("use", unit.path.stem):
            if self._pins.held(f"image-{unit.path.stem}") or self._is_fresh(unit.path):
                return False
            unit.path.unlink(missing_ok=True)
        for name in unit.names:
            name.unlink(missing_ok=True)
        return True

    def _remove_cache(self, path: Path) -> bool:
        """Steps hold a shared lock on ``use`` while a cache is mounted."""
        with contextlib.suppress(OSError), (path / "use").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._throw_away(path)
            return True
        return False

    def _remove(self, note: str) -> bool:
        kind, _, name = note.partition("-")
        path = self._disk.path(f"{kind}s", name)
        with self._disk.lock("use", f"sha256:{name}"):
            stamp = path / "layer.json" if kind == "layer" else path
            if self._pins.held(note) or self._is_fresh(stamp):
                return False
            self._throw_away(path)
        for rest, suffix in (("compressed", ".json"), ("sources", ".json")):
            if (kind == "layer") == (rest == "compressed"):
                self._disk.path(rest, name, suffix).unlink(missing_ok=True)
        (self._disk.root / "unsettled" / note).unlink(missing_ok=True)
        return True

    def _is_fresh(self, stamp: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return stamp.stat().st_mtime >= self._started
        return False

    def _throw_away(self, path: Path) -> None:
        """Out of sight in one step, then removed: a crash between leaves it to ``reap``."""
        with self._disk.staging() as folder, contextlib.suppress(FileNotFoundError):
            path.rename(folder / "gone")


def tree_bytes(path: Path, most: int | None = None) -> int:
    """Bytes on disk below ``path``; counting ends beyond ``most``. Strangers shaped the tree."""
    total = 0
    folders = [str(path)]
    while folders and (most is None or total <= most):
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as listing:
            for item in listing:
                total += item.stat(follow_symlinks=False).st_blocks * 512
                if item.is_dir(follow_symlinks=False):
                    folders.append(item.path)
    return total


def _blob(descriptor: dict[str, object]) -> str:
    return f"blob-{str(descriptor.get('digest')).removeprefix('sha256:')}"
