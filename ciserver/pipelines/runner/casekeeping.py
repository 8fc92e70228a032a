"""Test cases, and coverage by file, after their pipelines: taken away when they are old."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef
from django.utils import timezone

from ciserver.pipelines.models import CoverageFile, Job, TestCase

AT_A_TIME = 50_000  # rows of each kind
OF_A_STATEMENT = 2_000  # others write between


def forget_old_cases() -> int:
    """Those of pipelines that ended more than GANTRY_CASE_DAYS ago, the oldest first; how many
    rows. What is beyond AT_A_TIME goes next time."""
    limit = timezone.now() - timedelta(days=settings.GANTRY.case_days)
    old = Job.objects.filter(pipeline__finished_at__lt=limit).order_by("pk")
    done = 0
    for model in (TestCase, CoverageFile):
        left = AT_A_TIME
        having = old.filter(Exists(model.objects.filter(job=OuterRef("pk"))))
        for job in having.values_list("pk", flat=True)[:AT_A_TIME]:
            while left > 0 and (count := _forget(model, job, min(left, OF_A_STATEMENT))):
                left -= count
                done += count
            if left <= 0:
                break
    return done


@transaction.atomic
def _forget(model: type[TestCase | CoverageFile], job: int, most: int) -> int:
    """With the count of cases: what a page tells is true whoever is killed when."""
    keys = list(model.objects.filter(job=job).order_by("pk").values_list("pk", flat=True)[:most])
    count, _ = model.objects.filter(pk__in=keys).delete()
    if model is TestCase and count:
        Job.objects.filter(pk=job).update(cases_removed=F("cases_removed") + count)
    return count
