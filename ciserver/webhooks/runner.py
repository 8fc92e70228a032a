"""From an accepted delivery to a pipeline: ask Git whether what was told is true, then queue."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from ciserver.lib import outbox
from ciserver.pipelines import services as pipelines
from ciserver.pipelines.definition import Definition
from ciserver.pipelines.definitions_at import usable_definition
from ciserver.pipelines.models import Event, Pipeline
from ciserver.projects.models import Project
from ciserver.repositories.errors import (
    FetchFailed,
    GitFailed,
    RepositoryError,
    UnknownCommit,
)
from ciserver.repositories.git import CommitInfo, commit_info, fetch, git_dir, heads, peel
from ciserver.webhooks import pulls
from ciserver.webhooks.models import PULL, Delivery, PullRequest, Verdict, is_in_vain

log = logging.getLogger(__name__)
TOPIC = "delivery.accepted"
SKIP = ("[skip ci]", "[ci skip]")
RACES = 5
PATIENCE = timedelta(minutes=10)  # how long what may pass by itself is tried again
AWAY = (OperationalError, InterfaceError)  # the database, or another that holds it too long


class Stale(Exception):
    """The ref has moved on to ``head``; a later delivery tells of where it is now."""

    def __init__(self, message: str, head: str | None) -> None:
        super().__init__(message)
        self.head = head


def plan(delivery_id: int) -> None:
    """Queue the pipeline of a delivery, or write down why there is none. May run twice.

    Every delivery is settled in the end: what does not pass within PATIENCE is a failure.
    """
    delivery = (
        Delivery.objects.select_related("project", "pull_request").filter(pk=delivery_id).first()
    )
    if delivery is None or not _pending(delivery):
        outbox.keep(TOPIC, delivery_id)
        return
    try:
        _decide(delivery)
    except Stale as stale:
        _settle(delivery, Verdict.STALE, str(stale))
        if delivery.kind == PULL and stale.head:
            _wait_for_approval(delivery, stale.head)
    except AWAY:
        raise  # nothing could be written down either
    except Exception as error:
        if not _may_pass(error) or timezone.now() - delivery.received_at >= PATIENCE:
            _settle(delivery, Verdict.FAILED, explain(error))
        else:  # the promise stands, so the sweeper wakes a worker for it again
            log.warning("delivery %s waits: %s", delivery.pk, error, exc_info=error)


def _decide(delivery: Delivery) -> None:
    for _ in range(RACES):
        last = _last_pipeline(delivery)
        info = _look(delivery)
        if word := _skips(info):
            _settle(delivery, Verdict.IGNORED, _skipped(info, word))
            return
        if _queue(delivery, info, last):
            return
    log.warning("delivery %s waits: its ref moves too fast", delivery.pk)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a hosted repository had when a push to it was looked at, before any lock was taken."""

    last: Pipeline | None  # of the ref
    head: str | None  # where the ref was
    info: CommitInfo | None  # None when there is no such commit; ``missing`` says so
    definition: Definition | None
    missing: str = ""


def look_at_hosted(delivery: Delivery) -> Seen:
    """Ask Git what ``start_hosted`` will need of a push; the last pipeline first, so that one
    which is queued meanwhile is noticed."""
    last = _last_pipeline(delivery)
    head = heads(git_dir(delivery.project), delivery.ref).get(delivery.ref)
    try:
        info = _commit(delivery)
    except UnknownCommit as error:
        return Seen(last, head, None, None, str(error))
    return Seen(last, head, info, usable_definition(delivery.project, info.sha))


def start_hosted(delivery: Delivery, seen: Seen) -> bool:
    """Queue the pipeline of a push to our own Git, in the caller's transaction.

    False when the ref has another last pipeline by now, so that Git must be asked again.

    When a later push was recorded before this one, this one is stale. One that is only followed
    already is built: its pusher was promised that.
    """
    last = _last_pipeline(delivery)
    if last != seen.last:
        return False
    if seen.info is None:
        delivery.verdict, delivery.detail = Verdict.FAILED, seen.missing
    elif seen.head and seen.head != delivery.sha and last and last.commit == seen.head:
        delivery.verdict, delivery.detail = Verdict.STALE, str(_stale(delivery, seen.head))
    elif word := _skips(seen.info):
        delivery.verdict, delivery.detail = Verdict.IGNORED, _skipped(seen.info, word)
    else:
        delivery.pipeline = _pipeline(delivery, seen.info, seen.definition)
    delivery.save(update_fields=["verdict", "detail", "pipeline"])
    return True


def explain(error: Exception) -> str:
    """Why a delivery failed, for its page; the words of what nobody foresaw stay in the log."""
    if isinstance(error, RepositoryError):
        return str(error)
    log.error("a delivery failed for a reason that nobody foresaw", exc_info=error)
    return (
        f"Gantry itself failed over this delivery ({type(error).__name__}). Send it again; "
        "if it fails again, whoever runs this Gantry finds the reason in the log."
    )


def _may_pass(error: Exception) -> bool:
    """Whether the same delivery may go well a little later."""
    match error:
        case FetchFailed():
            return error.temporary
        case GitFailed():
            return True
        case RepositoryError():
            return False
    return True


def _look(delivery: Delivery) -> CommitInfo:
    """The commit as the repository has it now. Raises Stale, FetchFailed or UnknownCommit."""
    project = delivery.project
    if project.hosted:
        head = heads(git_dir(project), delivery.ref).get(delivery.ref)
    else:
        head = fetch(project, delivery.ref)
    if delivery.kind == PULL and head != delivery.sha:
        raise _stale(delivery, head)  # what was forced away is not even there
    info = _commit(delivery)
    # Some forges tell of a tag by its commit, not by the tag's own object.
    same = head == delivery.sha or (
        head and delivery.kind == "tag" and peel(git_dir(project), head) == info.sha
    )
    if not same:
        raise _stale(delivery, head)
    return info


def _stale(delivery: Delivery, head: str | None) -> Stale:
    where = f"is at {head[:12]} now" if head else "is gone"
    return Stale(f"Stale: {delivery.ref} {where}, no longer at {delivery.sha[:12]}.", head)


def _commit(delivery: Delivery) -> CommitInfo:
    """Raises UnknownCommit. A branch is at a commit and nothing else; a tag leads to one."""
    place = git_dir(delivery.project)
    sha = peel(place, delivery.sha) if delivery.kind == "tag" else delivery.sha
    return commit_info(place, sha)


def _skips(info: CommitInfo) -> str:
    """The word by which a commit's message asks not to be built, or nothing."""
    message = info.message.lower()
    return next((word for word in SKIP if word in message), "")


def _skipped(info: CommitInfo, word: str) -> str:
    return f"{info.sha[:8]} says {word}: nothing is built of it."


def mark_duplicate(delivery: Delivery, pipeline: Pipeline | None) -> None:
    """Not saved. ``pipeline`` is None while the twin waits to be planned."""
    delivery.verdict, delivery.pipeline = Verdict.DUPLICATE, pipeline
    came = (
        f"pipeline #{pipeline.number}" if pipeline else "another delivery, which is being planned"
    )
    delivery.detail = f"{delivery.sha[:8]} of {delivery.ref} came already: {came}."


def _last_pipeline(delivery: Delivery) -> Pipeline | None:
    return Pipeline.objects.filter(project=delivery.project, ref=delivery.ref).first()


def _queue(delivery: Delivery, info: CommitInfo, seen: Pipeline | None) -> bool:
    """False when the ref has another last pipeline than ``seen``, so that Git must be asked again:
    between looking and queueing the ref may have moved, and that been queued."""
    definition = usable_definition(delivery.project, info.sha)  # Git is asked under no lock
    with transaction.atomic():
        # The project first, as whoever records deliveries does: two locks, one order.
        Project.objects.select_for_update().get(pk=delivery.project_id)
        locked = Delivery.objects.select_for_update().select_related("project").get(pk=delivery.pk)
        if _pending(locked):
            # Deliveries of one ref may come in any order, and twice; what is queued for it may not.
            last = _last_pipeline(locked)
            if last != seen:
                return False
            if last and last.commit == info.sha and not is_in_vain(last):
                mark_duplicate(locked, last)
            else:
                locked.pipeline = _pipeline(locked, info, definition)
            locked.save(update_fields=["verdict", "detail", "pipeline"])
        outbox.keep(TOPIC, delivery.pk)
    return True


def _settle(delivery: Delivery, verdict: Verdict, detail: str) -> None:
    with transaction.atomic():
        pending = Delivery.objects.filter(
            pk=delivery.pk, verdict=Verdict.ACCEPTED, pipeline__isnull=True
        )
        pending.update(verdict=verdict, detail=detail)
        outbox.keep(TOPIC, delivery.pk)


def _wait_for_approval(delivery: Delivery, head: str) -> None:
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=delivery.project_id)
        pulls.moved(delivery, head)


def _pending(delivery: Delivery) -> bool:
    return delivery.verdict == Verdict.ACCEPTED and delivery.pipeline_id is None


def _pipeline(
    delivery: Delivery, info: CommitInfo, definition: Definition | None = None
) -> Pipeline:
    return pipelines.queue(
        project=delivery.project,
        commit=info.sha,
        ref=delivery.ref,
        title=_cut(info.subject, 300),
        author=_cut(info.author, 200),
        committed_at=info.committed_at,
        started_by=_cut(delivery.sender, 150),
        event=Event.PULL_REQUEST if delivery.kind == PULL else None,
        from_fork=delivery.kind == PULL,
        pull_request=_pull_request(delivery),
        definition=definition,
    )


def _pull_request(delivery: Delivery) -> int | None:
    """The number of the pull request that it is about: a push may be of one, too."""
    row = delivery.pull_request
    if row is None and delivery.kind == "push":
        row = PullRequest.objects.filter(
            project=delivery.project, head=delivery.ref, from_fork=False, open=True
        ).first()
    return row.number if row else None


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
