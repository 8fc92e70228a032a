"""Folders of caches: put in their place whole, and pruned by age and size.

``PROJECT/LANE/KEY/`` each; a name that begins with a dot is half written or half removed.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_DAY = 86400.0
_HALF = 3600.0  # seconds after which what is half done is nobody's any more


@dataclass(frozen=True, slots=True)
class Entry:
    """One cache: when it was last used (seconds since the epoch), and its bytes."""

    used: float
    size: int
    folder: Path

    @property
    def lane(self) -> Path:
        return self.folder.parent

    @property
    def project(self) -> Path:
        return self.lane.parent


def prune(root: Path, *, most: int, share: int | None = None, days: float | None = None) -> int:
    """Remove what was not used for ``days``, then what is ``beyond`` a project's ``share`` (all,
    unless given) or beyond ``most`` bytes; bytes that went. Raises OSError."""
    known = _all(root)
    limit = 0.0 if days is None else time.time() - days * _DAY
    old = [entry for entry in known if entry.used < limit]
    left = [entry for entry in known if entry.used >= limit]
    freed = 0
    for entry in [*old, *beyond(left, most=most, share=most if share is None else share)]:
        remove(entry.folder)
        freed += entry.size
    return freed


def beyond(entries: Sequence[Entry], *, most: int, share: int) -> list[Entry]:
    """What must go. Always of the project that keeps most, so that none drives out another's; of
    it the lane that keeps most, so that no branch does either; of that what was not used for
    longest."""
    left = sorted(entries, key=lambda entry: entry.used)
    gone = []
    while left:
        projects: Counter[Path] = Counter()
        lanes: Counter[Path] = Counter()
        for entry in left:
            projects[entry.project] += entry.size
            lanes[entry.lane] += entry.size
        project, size = projects.most_common(1)[0]
        if size <= share and projects.total() <= most:
            break
        lane = max((it for it in lanes if it.parent == project), key=lanes.__getitem__)
        entry = next(entry for entry in left if entry.lane == lane)
        left.remove(entry)
        gone.append(entry)
    return gone


def put(fresh: Path, target: Path) -> None:
    """Make ``fresh`` be ``target``: at no moment half of one, and the last to come counts."""
    remove(target)
    with suppress(FileExistsError):
        fresh.rename(target)


def remove(folder: Path) -> None:
    """Out of its place in one step, so that nobody finds half of it."""
    away = folder.with_name(f".gone-{folder.name}-{time.monotonic_ns()}")
    try:
        folder.rename(away)
    except FileNotFoundError:
        return
    shutil.rmtree(away, ignore_errors=True)


def _all(root: Path) -> list[Entry]:
    """Every cache; removes what a dead worker left half done."""
    found = []
    for folder in root.glob("*/*/*"):
        try:
            used = folder.stat().st_mtime
            if folder.name.startswith("."):
                if time.time() - used > _HALF:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            size = sum(it.stat().st_size for it in folder.iterdir())
        except OSError:
            continue  # it was removed meanwhile
        found.append(Entry(used, size, folder))
    return found
