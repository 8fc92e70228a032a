"""Taking away artifacts whose time is over, and files that no row names any more."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from ciserver.pipelines.models import Artifact, Job

_YOUNG = 3600.0  # seconds: a folder may be a moment older than its rows


def forget_expired() -> None:
    for artifact in Artifact.objects.filter(expires_at__lte=timezone.now()):
        artifact.file.unlink(missing_ok=True)
        artifact.delete()
    root = Path(settings.GANTRY.artifacts)
    for folder in root.iterdir() if root.exists() else ():
        if not folder.name.isdecimal() or time.time() - folder.stat().st_mtime < _YOUNG:
            continue
        if not Job.objects.filter(pk=int(folder.name)).exists():
            shutil.rmtree(folder, ignore_errors=True)
        elif not any(folder.iterdir()):
            folder.rmdir()
