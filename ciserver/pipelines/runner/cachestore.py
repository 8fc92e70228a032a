"""Folders of caches: put in their place whole, and pruned by age and size.

``PROJECT/LANE/KEY/`` each; a name that begins with a dot is half written or half removed.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

_DAY = 86400.0
_HALF = 3600.0  # seconds after which what is half done is nobody's any more


def prune(root: Path, *, most: int, days: float | None = None) -> int:
    """Remove what was not used for ``days``, then what was not used for longest until the rest is
    within ``most`` bytes; bytes that went."""
    known = sorted(_all(root), reverse=True)
    total = freed = 0
    for used, size, folder in known:
        old = days is not None and time.time() - used > days * _DAY
        if old or total + size > most:
            remove(folder)
            freed += size
        else:
            total += size
    return freed


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


def _all(root: Path) -> list[tuple[float, int, Path]]:
    """(last used, bytes, folder) of every cache; removes what a dead worker left half done."""
    found = []
    for folder in root.glob("*/*/*"):
        try:
            used = folder.stat().st_mtime
            if folder.name.startswith("."):
                if time.time() - used > _HALF:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            found.append((used, sum(it.stat().st_size for it in folder.iterdir()), folder))
        except OSError:
            continue  # it was removed meanwhile
    return found
