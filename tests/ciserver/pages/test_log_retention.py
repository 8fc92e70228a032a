"""Logs go when their pipeline ended long ago; others stay."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.runner.logkeeping import forget_old_logs

DAY = 86400


def age(pipeline: Pipeline, days: float, *, ended: bool = True) -> Any:
    finished = timezone.now() - timedelta(days=days) if ended else None
    Pipeline.objects.filter(pk=pipeline.pk).update(finished_at=finished)
    log = pipeline.jobs.all()[0].log_path
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("0 1 out x\n")
    past = time.time() - days * DAY
    os.utime(log.parent, (past, past))
    return log


def test_old_logs_go_and_young_and_running_ones_stay(hello: Any) -> None:
    first, second, third = Pipeline.objects.filter(project=hello, jobs__isnull=False).distinct()[:3]
    old = age(first, settings.GANTRY.log_days + 1)
    young = age(second, settings.GANTRY.log_days - 1)
    running = age(third, settings.GANTRY.log_days + 1, ended=False)
    forget_old_logs()
    assert not old.parent.exists()
    assert young.exists()
    assert running.exists()
