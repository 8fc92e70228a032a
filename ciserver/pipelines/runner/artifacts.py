"""Keeping the files that a test names: read inside the container's root, stored outside it."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from datetime import timedelta

from django.utils import timezone

from builders.containers import Container
from ciserver.lib.words import size as size_words
from ciserver.pipelines.definition import Artifacts
from ciserver.pipelines.models import Artifact
from ciserver.pipelines.runner.jobs import JobRun
from ciserver.pipelines.runner.reports import found

MIB = 1024 * 1024
MOST_FILES = 200
MOST_BYTES = 64 * MIB  # of one file
MOST_TOGETHER = 256 * MIB


def keep_artifacts(run: JobRun, wanted: Artifacts, container: Container) -> None:
    """Store them, and say in the log which could not be. Never fails the job.

    What an earlier try of the job left is replaced.
    """
    for old in run.job.artifacts.all():
        old.file.unlink(missing_ok=True)
        old.delete()
    room = MOST_TOGETHER
    expires = timezone.now() + timedelta(seconds=wanted.expire_in)
    for path in found(run, container, wanted.paths, "artifact", most=MOST_FILES, below=True):
        shown = run.log.masker.mask_text(path)
        try:
            data = container.read_file(path, min(MOST_BYTES, room))
            _store(Artifact(job=run.job, path=shown, size=len(data), expires_at=expires), data)
        except OSError as error:
            run.log.say(f"The artifact {path} was not kept: {error.strerror or error}")
            continue
        room -= len(data)
        run.log.say(f"Kept {path}, {size_words(len(data))}.")


def _store(artifact: Artifact, data: bytes) -> None:
    """Raises OSError, and then leaves nothing."""
    artifact.sha256 = hashlib.sha256(data).hexdigest()
    artifact.save()
    try:
        artifact.file.parent.mkdir(mode=0o2750, parents=True, exist_ok=True)
        fd = os.open(artifact.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except OSError:  # a full disk, say
        with suppress(OSError):
            artifact.file.unlink()
        artifact.delete()
        raise
