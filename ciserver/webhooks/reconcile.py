"""Finding what no delivery told of: ``ls-remote`` of each outside repository, now and then.

Forges drop pushes of many refs and big bodies, and most never deliver again. What a look finds
becomes a delivery like any other, so a webhook that comes late is a duplicate of it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from datetime import timedelta

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from ciserver.celery import app
from ciserver.projects.models import Project
from ciserver.repositories.errors import RepositoryError
from ciserver.repositories.git import ls_remote, pull_number
from ciserver.webhooks import pulls, services
from ciserver.webhooks.models import Delivery, Poll, Verdict

log = logging.getLogger(__name__)
QUIET = 6  # times the usual interval
QUIET_AFTER = 288  # looks that found nothing: a day of them
JITTER = 0.1  # of the interval, either way
AT_A_TIME = 20  # repositories of one round, and new heads of one look
TASK = "ciserver.webhooks.tasks.look"


def look_around() -> int:
    """Have a worker look at every repository whose time has come; the number of them."""
    now = timezone.now()
    for project in Project.objects.open().exclude(clone_url="").filter(poll=None)[:AT_A_TIME]:
        Poll.objects.get_or_create(project=project, defaults={"next_at": now})
    due = Poll.objects.filter(next_at__lte=now).exclude(project__clone_url="")
    due = due.filter(project__archived_at=None)
    return sum(_send(poll) for poll in due.order_by("next_at")[:AT_A_TIME])


def _send(poll: Poll) -> bool:
    interval = timedelta(seconds=settings.GANTRY.look_seconds)
    interval *= QUIET if poll.quiet >= QUIET_AFTER else 1
    pause = interval * (1 + random.uniform(-JITTER, JITTER))  # noqa: S311 - no secret
    mine = Poll.objects.filter(pk=poll.pk, next_at=poll.next_at)
    if not mine.update(next_at=timezone.now() + pause):
        return False  # another scheduler was faster
    try:
        app.send_task(TASK, args=[poll.project_id], expires=pause.total_seconds())
    except Exception:
        Poll.objects.filter(pk=poll.pk).update(next_at=poll.next_at)  # no worker heard: still due
        raise
    return True


def look(project_id: int) -> None:
    """Record each branch, tag or pull request that moved and that no delivery told of.

    The first look at an address only remembers: what was there before is not built by itself.
    """
    poll = Poll.objects.select_related("project").filter(project=project_id).first()
    if poll is None or poll.project.hosted:
        return
    try:
        now = ls_remote(poll.project)
    except RepositoryError as error:
        log.info("%s could not be looked at: %s", poll.project, error)
        Poll.objects.filter(pk=poll.pk).update(error=str(error), looked_at=timezone.now())
        return
    address = poll.project.clone_url
    before = poll.heads if poll.address in ("", address) else None
    seen = now if before is None else dict(before)
    moved = [ref for ref, sha in now.items() if seen.get(ref) != sha]
    for ref in moved[:AT_A_TIME]:
        if not _told(poll.project, ref, now):
            services.discover(project=poll.project, ref=ref, sha=now[ref])
        seen[ref] = now[ref]
    Poll.objects.filter(pk=poll.pk).update(
        # What is gone is forgotten, so that it is new when it comes back.
        heads={ref: sha for ref, sha in seen.items() if ref in now},
        address=address,
        quiet=0 if moved else poll.quiet + 1,
        looked_at=timezone.now(),
        error="",
        **({"next_at": timezone.now()} if moved[AT_A_TIME:] else {}),  # the rest in the next one
    )


def _told(project: Project, ref: str, now: Mapping[str, str]) -> bool:
    """Whether the last word on the ref, or one that was refused, is of the commit that it is at.

    A pull request whose commit is a branch's, too, is the push of that branch.
    """
    sha = now[ref]
    if number := pull_number(ref):
        own = any(head == sha for name, head in now.items() if name.startswith("refs/heads/"))
        return own or pulls.is_told(project, number, sha)
    words = Delivery.objects.filter(project=project, ref=ref, sha=sha)
    last = Q(verdict=Verdict.ACCEPTED, superseded=False)
    return words.filter(last | Q(verdict=Verdict.FAILED)).exists()
