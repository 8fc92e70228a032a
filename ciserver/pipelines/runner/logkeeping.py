"""Logs after their jobs: packed soon, and taken away when they are old or too much together."""

from __future__ import annotations

import logging
import shutil
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db.models import Sum
from django.utils import timezone

from ciserver.lib.problems import Refused
from ciserver.pipelines import logfiles
from ciserver.pipelines.models import Job, Pipeline

log = logging.getLogger(__name__)
AT_A_TIME = 500
_STILL = timedelta(seconds=30)  # a job's last followers read its plain file to the end


def pack_logs() -> int:
    """Pack the logs of jobs that have ended; how many. What fails is tried again next time."""
    ended = Job.objects.filter(finished_at__lt=timezone.now() - _STILL, log_bytes=None)
    done = 0
    for job in ended.select_related("pipeline").order_by("pk")[:AT_A_TIME]:
        try:
            size = logfiles.keep(job.log_path)
        except FileNotFoundError:
            size = 0
        except OSError as error:
            log.warning("the log of %s was not packed: %s", job, error)
            continue
        except Refused as error:
            log.warning("logs wait to be packed: %s", error)
            break  # the storage is away: the next would fare no better
        Job.objects.filter(pk=job.pk).update(log_bytes=size)
        done += 1
    return done


def forget_old_logs() -> None:
    """Those of pipelines that ended more than GANTRY_LOG_DAYS ago; then, oldest first, as many as
    are beyond GANTRY_LOG_MAX_GIB; and folders whose pipeline is gone."""
    limit = timezone.now() - timedelta(days=settings.GANTRY.log_days)
    ended = Pipeline.objects.exclude(finished_at=None).filter(jobs__log_bytes__gt=0).distinct()
    for pipeline in ended.filter(finished_at__lt=limit).order_by("pk")[:AT_A_TIME]:
        _forget(pipeline)
    excess = _total() - settings.GANTRY.log_bytes
    for pipeline in ended.order_by("finished_at", "pk")[:AT_A_TIME] if excess > 0 else ():
        excess -= _forget(pipeline)
        if excess <= 0:
            break
    _forget_folders(limit.timestamp())


def _forget(pipeline: Pipeline) -> int:
    freed = 0
    for job in pipeline.jobs.filter(log_bytes__gt=0):
        try:
            logfiles.remove(job.log_path)
        except Refused as error:
            log.warning("the log of %s was not removed: %s", job, error)
            continue
        freed += job.log_bytes or 0
        Job.objects.filter(pk=job.pk).update(log_bytes=0)
    return freed


def _total() -> int:
    return Job.objects.aggregate(total=Sum("log_bytes"))["total"] or 0


def _forget_folders(limit: float) -> None:
    """Folders that nobody wrote into for long: empty, or of pipelines that have no row."""
    root = Path(settings.GANTRY.logs) / "pipelines"
    for folder in root.iterdir() if root.exists() else ():
        if not folder.name.isdecimal() or folder.stat().st_mtime > limit:
            continue
        row = Pipeline.objects.filter(pk=int(folder.name)).first()
        if row is None or (row.finished_at and row.finished_at.timestamp() < limit):
            shutil.rmtree(folder, ignore_errors=True)
