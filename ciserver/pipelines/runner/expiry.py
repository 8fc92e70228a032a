"""Taking away artifacts and logs whose time is over, and files that no row names any more."""

from __future__ import annotations

import shutil
import time
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from ciserver.pipelines.models import Artifact, Job, Pipeline

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


def forget_old_logs() -> None:
    """Those of pipelines that ended more than GANTRY_LOG_DAYS ago, or whose row is gone."""
    limit = timezone.now() - timedelta(days=settings.GANTRY.log_days)
    root = Path(settings.GANTRY.logs) / "pipelines"
    for folder in root.iterdir() if root.exists() else ():
        # A log is older than its pipeline's end: whoever wrote lately is spared the look.
        if not folder.name.isdecimal() or folder.stat().st_mtime > limit.timestamp():
            continue
        row = Pipeline.objects.filter(pk=int(folder.name)).first()
        if row is None or (row.finished_at and row.finished_at < limit):
            shutil.rmtree(folder, ignore_errors=True)
