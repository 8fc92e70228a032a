"""Whether this worker's disks have room for one more pipeline.

A build that fills what is left would take logs, the database and other builds with it. What does
not fit waits, says why, and begins by itself when there is room again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from ciserver.pipelines import events
from ciserver.pipelines.models import Pipeline, State

MIB = 1024 * 1024
FILES = 2000  # inodes that are kept back besides, where a file system counts them


def lacking() -> str:
    """What the disks lack, as a sentence and the next step; empty when there is room."""
    reserve = settings.GANTRY.reserve
    for path, disk in _disks():
        if disk.f_bavail * disk.f_frsize < reserve:
            short = f"{reserve // MIB} MiB free"
        elif disk.f_files and disk.f_favail < FILES:
            short = f"{FILES} files"
        else:
            continue
        return (
            f"The worker's disk at {path} has no room for {short}. "
            "Free some: it begins by itself then."
        )
    return ""


def _disks() -> Iterator[tuple[Path, os.statvfs_result]]:
    """Each file system once that a pipeline writes to."""
    config = settings.GANTRY
    seen = set()
    for path in (config.home, config.store, config.sandboxes, config.logs, config.artifacts):
        if path.exists() and (device := path.stat().st_dev) not in seen:
            seen.add(device)
            yield path, os.statvfs(path)


def tell(lack: str) -> None:
    """Write down what queued pipelines wait for. Whoever claims one takes it away again."""
    waiting = Pipeline.objects.filter(state=State.QUEUED).exclude(reason=lack)
    numbers = list(waiting.values_list("pk", flat=True))
    waiting.update(reason=lack)
    for number in numbers:
        events.publish(number)
