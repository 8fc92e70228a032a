"""What Git leaves in a repository when it is killed: as large as what it was bringing."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

# Quarantines of pushes; packs and objects that were not whole yet.
HALVES = (
    "objects/tmp_objdir-*",
    "objects/pack/tmp_*",
    "objects/pack/*.temp",
    "objects/??/tmp_obj_*",
)


def remove_halves(repository: Path, *, older: float = 0.0) -> int:
    """Remove what has been left for ``older`` seconds; how many there were."""
    gone = 0
    for pattern in HALVES:
        for path in repository.glob(pattern):
            with suppress(FileNotFoundError):  # Git was at work, and has ended
                if time.time() - path.lstat().st_mtime < older:
                    continue
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                gone += 1
    return gone
