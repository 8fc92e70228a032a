"""Pull requests as forges tell of them: what to look at, and which wait for an approval.

One of the project's own repository is nothing but the push of its branch, built once whichever of
the two is told first. One of a fork waits until a maintainer approves that very commit.
"""

from __future__ import annotations

import re
import uuid

from django.utils import timezone

from ciserver.projects.models import Project
from ciserver.repositories.names import MAX_REF
from ciserver.webhooks.forges.events import Malformed, Push, printable
from ciserver.webhooks.forges.events import PullRequest as Told
from ciserver.webhooks.models import POLL, PULL, Delivery, Poll, PullRequest, Verdict

SHORT = re.compile(r"[0-9a-f]{12,64}")
FULL = {40, 64}
NEWER = "A newer commit came before this one was approved."


def note(delivery: Delivery, told: Told) -> Push | None:
    """Keep what was ``told``, and what is to be judged as a push; None when it is settled.

    Called under the project's lock. Raises Malformed.
    """
    if not SHORT.fullmatch(told.sha):
        raise Malformed(f"{told.sha[:80]!r} is not a commit id.")
    if _settle_if_old(delivery, told):
        return None
    row, _ = PullRequest.objects.update_or_create(
        project=delivery.project,
        forge=_forge_of(delivery, told.number),
        number=told.number,
        defaults={
            "title": told.title,
            "sender": told.sender,
            "head": printable(told.head, MAX_REF),
            "base": printable(told.base, MAX_REF),
            "ref": printable(told.ref, MAX_REF),
            "sha": told.sha,
            "from_fork": told.from_fork,
            "open": told.open,
        },
    )
    delivery.pull_request, delivery.sender, delivery.sha = row, told.sender, told.sha
    delivery.detail = _settled(row, told)
    if not told.open:
        _no_longer_waiting(row, "It was closed before anybody approved it.")
    if delivery.detail:
        return None
    return Push(ref=told.ref if told.from_fork else told.head, sha=told.sha, sender=told.sender)


def _settle_if_old(delivery: Delivery, told: Told) -> bool:
    """Say in ``delivery`` that it tells of a commit that the pull request was at before; whether
    it does.

    It came late, or is a replay; or somebody went back by force. Git knows: whenever a commit is
    told that the row is not at, the repository is looked at soon, and what that finds counts.
    """
    forge = _forge_of(delivery, told.number)
    rows = PullRequest.objects.filter(project=delivery.project, forge=forge, number=told.number)
    row = rows.first()
    if row is None or row.sha == told.sha or delivery.forge == POLL or not told.ref:
        return False
    _look_again(delivery.project, told.ref)
    before = Delivery.objects.filter(pull_request=row, sha=told.sha)
    if not (told.from_fork and told.open and before.exists()):
        return False
    delivery.pull_request, delivery.sender, delivery.sha = row, told.sender, told.sha
    delivery.verdict = Verdict.STALE
    delivery.detail = (
        f"Stale: pull request {row.number} was at {told.sha[:12]} before, and is told to be at "
        f"{row.sha[:12]} since. If it went back, a look at the repository finds it."
    )
    return True


def _look_again(project: Project, ref: str) -> None:
    """Have the next look take ``ref`` for one that moved, soon."""
    poll = Poll.objects.filter(project=project).first()
    if poll is not None and poll.heads is not None:
        poll.heads.pop(ref, None)
        poll.next_at = timezone.now()
        poll.save(update_fields=["heads", "next_at"])


def _forge_of(delivery: Delivery, number: int) -> str:
    """What a look found belongs to the forge that tells of it, before or afterwards."""
    rows = PullRequest.objects.filter(project=delivery.project, number=number)
    if delivery.forge == POLL:
        return rows.values_list("forge", flat=True).first() or POLL
    rows.filter(forge=POLL).update(forge=delivery.forge)
    return delivery.forge


def found(project: Project, number: int, ref: str, sha: str) -> Told:
    """What a look at the repository tells of a pull request: where it is. All else is as its
    forge told, if it did; that it is a fork's is the careful guess."""
    row = PullRequest.objects.filter(project=project, number=number).first()
    return Told(
        number=number,
        sha=sha,
        head=row.head if row else ref,
        base=row.base if row else "",
        ref=ref,
        head_repository="",
        base_repository="",
        title=row.title if row else "",
        sender=row.sender if row else "",
    )


def is_told(project: Project, number: int, sha: str) -> bool:
    """Whether its forge told that the pull request is at ``sha``, or that its branch is the
    project's own, whose pushes are looked at by themselves."""
    row = PullRequest.objects.filter(project=project, number=number).first()
    return row is not None and (row.sha == sha or not row.from_fork)


def _settled(row: PullRequest, told: Told) -> str:
    """Why nothing is to be done about it; empty if something is."""
    if not told.open:
        return f"Pull request {row.number} was merged or closed: there is nothing to build."
    if not told.from_fork and len(told.sha) not in FULL:
        return f"Pull request {row.number} is of a branch of the project: its push is built."
    if told.from_fork and not told.ref:
        return (
            f"Pull request {row.number} is from a fork, whose commits this forge does not give to "
            "the project's repository. Push them to a branch of it to have them built."
        )
    return ""


def is_approved(delivery: Delivery) -> bool:
    """Whether a maintainer approved this very commit."""
    row = delivery.pull_request
    return row is not None and row.approved_sha == delivery.sha


def wait(delivery: Delivery) -> None:
    """Judge a fork's commit that nobody has approved. Not saved."""
    row = delivery.pull_request
    waiting = Delivery.objects.filter(pull_request=row, verdict=Verdict.WAITING)
    number = row.number if row else 0
    if waiting.filter(sha=delivery.sha).exists():
        delivery.verdict = Verdict.DUPLICATE
        delivery.detail = f"{delivery.sha[:8]} of pull request {number} waits already."
        return
    waiting.update(verdict=Verdict.IGNORED, detail=NEWER)
    delivery.verdict = Verdict.WAITING
    delivery.detail = (
        f"Pull request {number} is from a fork: nothing runs before a maintainer approves "
        f"{delivery.sha[:12]}."
    )


def moved(delivery: Delivery, head: str) -> None:
    """The fork's branch is at ``head``, of which no delivery told yet: that waits now."""
    if delivery.pull_request is None:
        return
    PullRequest.objects.filter(pk=delivery.pull_request.pk).update(sha=head)
    later = Delivery(
        project=delivery.project,
        forge=delivery.forge,
        delivery_id=f"moved:{uuid.uuid4().hex}",
        event=delivery.event,
        kind=PULL,
        ref=delivery.ref,
        sha=head,
        sender=delivery.sender,
        pull_request=delivery.pull_request,
    )
    wait(later)
    if later.verdict == Verdict.WAITING:
        later.save(force_insert=True)


def attach(delivery: Delivery) -> None:
    """Tell a pipeline, whose push came first, of the pull request that its branch is in."""
    row, pipeline = delivery.pull_request, delivery.pipeline
    if row and pipeline and pipeline.pull_request is None:
        pipeline.pull_request = row.number
        pipeline.save(update_fields=["pull_request"])


def _no_longer_waiting(row: PullRequest, detail: str) -> None:
    waiting = Delivery.objects.filter(pull_request=row, verdict=Verdict.WAITING)
    waiting.update(verdict=Verdict.IGNORED, detail=detail)
