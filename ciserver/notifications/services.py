"""Commit statuses: where they go, what is due, and sending it. Nothing here holds up a pipeline."""

from __future__ import annotations

import logging
import re
from datetime import timedelta

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from ciserver.accounts.models import AuditEntry, User
from ciserver.celery import app
from ciserver.lib.crypto import SealBroken, Secret
from ciserver.lib.problems import Refused
from ciserver.notifications.forges import FORGES
from ciserver.notifications.forges.requests import Told
from ciserver.notifications.models import CommitStatus, State, StatusTarget
from ciserver.notifications.sending import Outcome, send
from ciserver.projects import origins
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require

log = logging.getLogger(__name__)
REPOSITORY = re.compile(r"[A-Za-z0-9_.~-]+(?:/[A-Za-z0-9_.~-]+)*")
TASK = "ciserver.notifications.tasks.send"
AT_A_TIME = 20
CLAIM = timedelta(minutes=2)  # then a status whose worker died is due again
FIRST_PAUSE = timedelta(seconds=10)
MOST_ATTEMPTS = 12  # the pauses double up to an hour: half a day in all
LONGEST_PAUSE = timedelta(hours=1)


@transaction.atomic
def set_target(
    *, project: Project, user: User, forge: str, repository: str, token: Secret, api_url: str = ""
) -> StatusTarget:
    """Tell ``forge`` of every pipeline from now on. Needs the role maintainer. Raises Refused."""
    require(user, project, Role.MAINTAINER)
    if forge not in FORGES:
        raise _unfit("forge", f"{forge[:40]!r} shows no statuses.", f"Use: {', '.join(FORGES)}.")
    api_url = (api_url or FORGES[forge].API).rstrip("/")
    if not api_url:
        raise _unfit("api_url", "This forge has no public instance.", "Give the address of yours.")
    try:
        origins.check(api_url)
    except Refused as refusal:
        raise _unfit("api_url", refusal.message, refusal.hint) from None
    parts = repository.split("/")
    if not REPOSITORY.fullmatch(repository) or {".", ".."} & set(parts):
        hint = f"Its form is {FORGES[forge].REPOSITORY}."
        raise _unfit("repository", "This is not a repository's name.", hint)
    words = token.reveal()  # they become a header
    if not words.strip() or not words.isprintable() or not words.isascii():
        raise _unfit("token", "It needs a token.", f"Make one: {FORGES[forge].TOKEN}.")
    row = StatusTarget.objects.filter(project=project).first() or StatusTarget(project=project)
    row.forge, row.api_url, row.repository, row.paused_until = forge, api_url, repository, None
    row.put(Secret(words.strip()))
    row.save()
    AuditEntry.record(
        actor=user.username, action="project.statuses.set", target=project.slug, forge=forge
    )
    return row


@transaction.atomic
def remove_target(*, project: Project, user: User) -> None:
    """Tell no forge any more. Needs the role maintainer."""
    require(user, project, Role.MAINTAINER)
    StatusTarget.objects.filter(project=project).delete()
    CommitStatus.objects.filter(project=project).update(next_at=None)
    AuditEntry.record(actor=user.username, action="project.statuses.remove", target=project.slug)


def note(
    *, project: Project, pipeline: int, sha: str, of: str, state: State, description: str, url: str
) -> None:
    """How a pipeline stands now. Sent by ``wake``, whatever becomes of this process."""
    CommitStatus.objects.update_or_create(
        project=project,
        pipeline=pipeline,
        defaults={
            "sha": sha,
            "of": of,
            "state": state,
            "description": description[:140],
            "url": url,
            "attempts": 0,
            "next_at": timezone.now(),
            "error": "",
        },
    )


def wake() -> int:
    """Have workers send what is due; the number of statuses. A chore."""
    now = timezone.now()
    due = CommitStatus.objects.filter(next_at__lte=now).exclude(
        project__status_target__paused_until__gt=now
    )
    return sum(_wake(status) for status in due.order_by("next_at")[:AT_A_TIME])


def _wake(status: CommitStatus) -> bool:
    mine = CommitStatus.objects.filter(pk=status.pk, next_at=status.next_at)
    if not mine.update(next_at=timezone.now() + CLAIM):
        return False
    try:
        app.send_task(TASK, args=[status.pk], expires=CLAIM.total_seconds())
    except Exception:
        CommitStatus.objects.filter(pk=status.pk).update(next_at=status.next_at)
        raise
    return True


def deliver(status_id: int) -> None:
    """Send one status, and note how that went. May run twice: forges take the same again."""
    status = CommitStatus.objects.select_related("project__status_target").filter(pk=status_id)
    row = status.first()
    target = StatusTarget.objects.filter(project=row.project).first() if row else None
    if row is None or target is None or row.next_at is None:
        return
    try:
        outcome = _send(row, target)
    except Exception as error:  # it counts as an attempt, or it would be tried for ever
        log.exception("the status of %s could not be sent", row)
        name = type(error).__name__
        outcome = Outcome(f"Gantry could not send it ({name}): see the worker's log.")
    _settle(row, target, outcome)


def _send(row: CommitStatus, target: StatusTarget) -> Outcome:
    try:
        token = target.token.reveal()
    except (SealBroken, ValueError):
        return Outcome("The token does not open: enter it again.", final=True)
    told = Told(row.sha, row.state, row.description, row.url, row.pipeline)
    forge = FORGES[target.forge]
    return send(forge.request(target.api_url, target.repository, token, told), token)


def _settle(row: CommitStatus, target: StatusTarget, outcome: Outcome) -> None:
    """Only if it is still what was sent: a newer state is due in its own right."""
    same = CommitStatus.objects.filter(pk=row.pk, state=row.state, of=row.of)
    now = timezone.now()
    if not same.exists():
        # Told meanwhile by another worker, perhaps before this: once more, so that it is last.
        CommitStatus.objects.filter(pk=row.pk).update(next_at=now)
        return
    if not outcome.error:
        same.update(sent=row.state, sent_at=now, next_at=None, error="", attempts=0)
        return
    log.info("the status of %s was not taken: %s", row, outcome.error)
    if outcome.wait:
        StatusTarget.objects.filter(pk=target.pk).update(paused_until=now + outcome.wait)
    if outcome.wait and outcome.limited:
        same.update(next_at=now + outcome.wait, error=outcome.error)
        return
    final = outcome.final or row.attempts + 1 >= MOST_ATTEMPTS
    pause = max(min(FIRST_PAUSE * 2**row.attempts, LONGEST_PAUSE), outcome.wait or FIRST_PAUSE)
    same.update(
        attempts=F("attempts") + 1, next_at=None if final else now + pause, error=outcome.error
    )


def _unfit(field: str, message: str, hint: str) -> Refused:
    return Refused(message, code=f"statuses.{field}", hint=hint, status=400)
