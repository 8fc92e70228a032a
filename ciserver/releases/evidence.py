"""What a release can show for itself: its tests, and what its pipeline cost."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.db.models import Count

from ciserver.pipelines.models import JobKind, Pipeline, Step, TestCase


def collect(pipeline: Pipeline) -> dict[str, Any]:
    """JSON for ``Release.evidence``. Seconds and bytes; ``tests`` counts cases by outcome."""
    return {
        "commit": pipeline.commit,
        "ref": pipeline.ref,
        "author": pipeline.author,
        "pipeline": pipeline.number,
        "tests": _tests(pipeline),
        "receipts": _receipts(pipeline),
    }


def configuration(pipeline: Pipeline) -> str:
    """Names what the commit's own configuration asked for: its jobs and their options."""
    jobs = [(job.name, job.kind, job.options) for job in pipeline.latest_jobs()]
    return hashlib.sha256(json.dumps(jobs, sort_keys=True).encode()).hexdigest()


def _tests(pipeline: Pipeline) -> dict[str, Any]:
    jobs = [job for job in pipeline.latest_jobs() if job.kind == JobKind.TEST]
    cases = TestCase.objects.filter(job__in=jobs, superseded=False)
    counted = dict(cases.order_by().values_list("outcome").annotate(Count("pk")))
    return {
        "jobs": [{"name": job.name, "state": job.state} for job in jobs],
        "cases": sum(counted.values()),
        **{outcome.value: counted.get(outcome.value, 0) for outcome in TestCase.Outcome},
    }


def _receipts(pipeline: Pipeline) -> dict[str, Any]:
    steps = Step.objects.filter(job__pipeline=pipeline)
    receipts = [step.receipt for step in steps if step.receipt]
    return {
        "steps": len(steps),
        "cached": sum(step.cached for step in steps),
        "wall_seconds": round(sum(float(r.get("wall") or 0) for r in receipts), 3),
        "cpu_seconds": round(
            sum(float(r.get("user") or 0) + float(r.get("system") or 0) for r in receipts), 3
        ),
        "peak_memory": max((int(r.get("peak_memory") or 0) for r in receipts), default=0),
    }
