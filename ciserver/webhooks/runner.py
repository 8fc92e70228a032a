"""From an accepted delivery to a pipeline: ask Git whether what was told is true, then queue."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from ciserver.lib import outbox
from ciserver.pipelines import services as pipelines
from ciserver.pipelines.models import Pipeline
from ciserver.repositories.errors import FetchFailed, RepositoryError, UnknownCommit
from ciserver.repositories.git import CommitInfo, commit_info, fetch, git_dir, heads
from ciserver.webhooks.models import Delivery, Verdict

log = logging.getLogger(__name__)
TOPIC = "delivery.accepted"
PATIENCE = timedelta(minutes=10)  # how long an outside repository may be unreachable


class Stale(Exception):
    """The ref has moved on; a later delivery tells of where it is now."""


def plan(delivery_id: int) -> None:
    """Queue the pipeline of a delivery, or write down why there is none. May run twice."""
    delivery = Delivery.objects.select_related("project").filter(pk=delivery_id).first()
    if delivery is None or not _pending(delivery):
        outbox.keep(TOPIC, delivery_id)
        return
    try:
        info = _look(delivery)
    except Stale as stale:
        _settle(delivery, Verdict.IGNORED, str(stale))
    except FetchFailed as error:
        if error.temporary and timezone.now() - delivery.received_at < PATIENCE:
            log.warning("delivery %s waits: %s", delivery.pk, error)
            return  # the promise stands, so the sweeper wakes a worker for it again
        _settle(delivery, Verdict.FAILED, str(error))
    except RepositoryError as error:
        _settle(delivery, Verdict.FAILED, str(error))
    else:
        _queue(delivery, info)


def start_hosted(delivery: Delivery) -> None:
    """Queue the pipeline of a push to our own Git, in the caller's transaction."""
    try:
        info = commit_info(git_dir(delivery.project), delivery.sha)
    except UnknownCommit as error:
        delivery.verdict, delivery.detail = Verdict.FAILED, str(error)
    else:
        delivery.pipeline = _pipeline(delivery, info)
    delivery.save(update_fields=["verdict", "detail", "pipeline"])


def _look(delivery: Delivery) -> CommitInfo:
    """The commit as the repository has it now. Raises Stale, FetchFailed or UnknownCommit."""
    project = delivery.project
    if project.hosted:
        head = heads(git_dir(project), delivery.ref).get(delivery.ref)
    else:
        head = fetch(project, delivery.ref)
    info = commit_info(git_dir(project), delivery.sha)
    if head != delivery.sha:
        where = f"is at {head[:12]} now" if head else "is gone"
        raise Stale(f"Stale: {delivery.ref} {where}, no longer at {delivery.sha[:12]}.")
    return info


def _queue(delivery: Delivery, info: CommitInfo) -> None:
    with transaction.atomic():
        locked = Delivery.objects.select_for_update().select_related("project").get(pk=delivery.pk)
        if _pending(locked):
            locked.pipeline = _pipeline(locked, info)
            locked.save(update_fields=["pipeline"])
        outbox.keep(TOPIC, delivery.pk)


def _settle(delivery: Delivery, verdict: Verdict, detail: str) -> None:
    with transaction.atomic():
        pending = Delivery.objects.filter(
            pk=delivery.pk, verdict=Verdict.ACCEPTED, pipeline__isnull=True
        )
        pending.update(verdict=verdict, detail=detail)
        outbox.keep(TOPIC, delivery.pk)


def _pending(delivery: Delivery) -> bool:
    return delivery.verdict == Verdict.ACCEPTED and delivery.pipeline_id is None


def _pipeline(delivery: Delivery, info: CommitInfo) -> Pipeline:
    return pipelines.queue(
        project=delivery.project,
        commit=delivery.sha,
        ref=delivery.ref,
        title=_cut(info.subject, 300),
        author=_cut(info.author, 200),
        committed_at=info.committed_at,
    )


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
