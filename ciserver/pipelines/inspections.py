"""Looking at what a failed job left: who may ask, what is there, and for how long."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib import outbox
from ciserver.lib.problems import Refused
from ciserver.pipelines.models import Inspection, Job
from ciserver.projects.models import Role
from ciserver.projects.services import require

TOPIC = "inspection.asked"
MOST_WORDS = 8192  # characters of a command


@dataclass(frozen=True, slots=True)
class Kept:
    """What a failed step left: the sandbox's id, and until when it can be looked at."""

    id: str
    until: datetime


def kept_of(job: Job) -> Kept | None:
    """What the last failed step of ``job`` left, if there is still time to look at it."""
    for step in sorted(job.steps.all(), key=lambda each: each.position, reverse=True):
        receipt: dict[str, Any] = step.receipt or {}
        if receipt.get("kept"):
            until = datetime.fromtimestamp(receipt["kept_until"], UTC)
            return Kept(receipt["kept"], until) if until > timezone.now() else None
    return None


def _why_nothing(job: Job) -> str:
    """The next step, after why nothing is kept."""
    if not any(step.receipt for step in job.steps.all()):
        return "It ended before it ran any program: its log tells why."
    return (
        "It is kept where a program failed, for the seconds of GANTRY_KEEP_FAILED, which each"
        " worker must have. Set that, and run the pipeline again."
    )


@transaction.atomic
def ask(*, job: Job, user: Any, command: Sequence[str]) -> Inspection:
    """Let a worker run ``command`` over what ``job`` left. Maintainers only; audited.

    What the job wrote of its secrets is there to be read, unlike the secrets themselves.
    Raises Refused.
    """
    require(user, job.pipeline.project, Role.MAINTAINER)
    kept = kept_of(job)
    if kept is None:
        raise Refused(
            f"Of the job {job.name} of pipeline {job.pipeline} nothing is kept.",
            code="inspection.nothing",
            hint=_why_nothing(job),
        )
    line = shlex.join(command)
    if len(line) > MOST_WORDS or "\0" in line:
        raise Refused(
            f"A command has at most {MOST_WORDS} characters.",
            code="inspection.command",
            hint="Write less, or several programs one after the other.",
        )
    name = user.get_username()
    AuditEntry.record(actor=name, action="job.inspect", target=f"{job}: {line[:200]}")
    asked = Inspection.objects.create(job=job, asked_by=name, kept=kept.id, command=list(command))
    outbox.promise(TOPIC, asked.pk)
    return asked
