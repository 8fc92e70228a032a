"""The approval of a fork's commit: by a maintainer, of that one commit, audited."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.utils import timezone

from ciserver.accounts.models import AuditEntry, User
from ciserver.lib import outbox
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require
from ciserver.webhooks.models import PULL, Delivery, PullRequest, Verdict
from ciserver.webhooks.runner import TOPIC
from ciserver.webhooks.services import judge_push


@transaction.atomic
def approve(*, pull_request: PullRequest, sha: str, user: User) -> PullRequest:
    """Let ``sha`` of a fork be built, without secrets. Needs the role maintainer.

    Raises Refused, also when the pull request is no longer at ``sha``: what was not looked at is
    not approved.
    """
    require(user, pull_request.project, Role.MAINTAINER)
    Project.objects.select_for_update().get(pk=pull_request.project_id)
    row = PullRequest.objects.select_related("project").get(pk=pull_request.pk)
    _check(row, sha)
    row.approved_sha, row.approved_by = sha, user.username
    row.approved_at = timezone.now()
    row.save()
    AuditEntry.record(actor=user.username, action="pull-request.approve", target=str(row), sha=sha)
    _start(row)
    return row


def _check(row: PullRequest, sha: str) -> None:
    wrong, hint = "", ""
    if not row.from_fork:
        wrong = f"Pull request {row.number} is not from a fork: its push is built without approval."
    elif not row.open:
        wrong = f"Pull request {row.number} is closed."
    elif not row.ref:
        wrong = f"The commits of pull request {row.number} are not in the project's repository."
        hint = "Push them to a branch of it to have them built."
    elif sha != row.sha:
        wrong = f"Pull request {row.number} is at {row.sha[:12]} now, not at {sha[:12]}."
        hint = "Look at the new commits, then approve those."
    elif row.approved_sha == sha:
        wrong = f"{sha[:12]} was approved by {row.approved_by} already."
    if wrong:
        raise Refused(wrong, code="pull-request", hint=hint)


def _start(row: PullRequest) -> None:
    waiting = Delivery.objects.filter(pull_request=row, sha=row.sha, verdict=Verdict.WAITING)
    delivery = waiting.select_related("project").first() or Delivery(
        project=row.project,
        forge=row.forge,
        delivery_id=f"approval:{uuid.uuid4().hex}",
        event="approval",
        kind=PULL,
        ref=row.ref,
        sha=row.sha,
        sender=row.sender,
        pull_request=row,
    )
    judge_push(delivery)
    if delivery.verdict == Verdict.ACCEPTED:
        delivery.detail = f"Approved by {row.approved_by}."
    # The patience with a forge that gives nothing begins now.
    delivery.received_at = timezone.now()
    delivery.save()
    if delivery.verdict == Verdict.ACCEPTED:
        outbox.promise(TOPIC, delivery.pk)
