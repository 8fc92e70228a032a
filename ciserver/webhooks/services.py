"""Recording what forges and pushers tell us, once each."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from ciserver.accounts.models import AuditEntry, User
from ciserver.lib import outbox
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require
from ciserver.repositories import spool
from ciserver.repositories.errors import BadName
from ciserver.repositories.git import git_dir, pull_number
from ciserver.repositories.names import (
    MAX_REF,
    check_ref,
    check_sha,
    is_gits_ref,
    is_null,
    is_ref,
)
from ciserver.repositories.spool import Push as HostedPush
from ciserver.repositories.spool import Update
from ciserver.webhooks import pulls, questions, runner
from ciserver.webhooks.forges import FORGES
from ciserver.webhooks.forges.events import (
    Envelope,
    Event,
    Malformed,
    Nothing,
    PullRequest,
    Push,
    Unreadable,
)
from ciserver.webhooks.models import POLL, PULL, Delivery, Poll, Verdict
from ciserver.webhooks.payloads import payload_of

log = logging.getLogger(__name__)
HOSTED = "hosted"
KEPT = timedelta(days=90)  # an id that is known for so long cannot be replayed
FORGOTTEN_AT_A_TIME = 5000
KEPT_BODY = 256 * 1024  # bytes of a body that stay with its delivery


@transaction.atomic
def receive(
    *,
    project: Project,
    forge: str,
    envelope: Envelope,
    events: Sequence[Event],
    headers: Mapping[str, str],
    body: bytes,
    digest: str = "",
) -> tuple[Delivery, bool]:
    """The first delivery of a verified request that is new, or the first of all; whether it is new.

    ``digest`` is the SHA-256 of the whole body when ``body`` is but its start.
    There is one for each of ``events``: some forges tell of many refs at once.
    What it starts is promised in the same transaction. One that came before is new again when it
    was in vain, for that is why people have a forge redeliver. Raises Malformed for a push of
    what cannot be a ref or a commit, and records nothing then.
    """
    delivery_id = envelope.delivery_id or f"body:{digest or hashlib.sha256(body).hexdigest()}"
    results = []
    for event in events:
        part = f":{_mark(event)}" if len(events) > 1 else ""
        delivery = Delivery(
            project=project,
            forge=forge,
            delivery_id=delivery_id + part,
            event=envelope.event,
            headers=dict(headers),
            body=body[:KEPT_BODY],
        )
        results.append(_record(delivery, event))
    return min(results, key=lambda result: (not result[1], result[0].verdict != Verdict.ACCEPTED))


def _mark(event: Event) -> str:
    """Tells the events of one request apart; 16 characters."""
    words = event.reason if isinstance(event, Nothing | Unreadable) else f"{event.ref} {event.sha}"
    return hashlib.sha256(words.encode(errors="surrogatepass")).hexdigest()[:16]


@transaction.atomic
def discover(*, project: Project, ref: str, sha: str) -> Delivery:
    """Record a head that no delivery told of, as though its forge had done so now.

    That of a pull request counts as a fork's, whatever it is: Git does not tell where it comes
    from, so nothing of it runs without an approval.
    """
    number = pull_number(ref)
    delivery = Delivery(
        project=project,
        forge=POLL,
        delivery_id=f"poll:{uuid.uuid4().hex}",
        event="pull request" if number else "push",
    )
    event = pulls.found(project, number, ref, sha) if number else Push(ref=ref, sha=sha)
    return _record(delivery, event)[0]


@transaction.atomic
def redeliver(*, delivery: Delivery, user: User) -> Delivery:
    """Record a delivery once more, as though its forge had sent it again; the new one.

    The same rules hold as for one that comes from outside: it may be a duplicate, or stale. Needs
    the role developer. Raises Refused.
    """
    project = delivery.project
    require(user, project, Role.DEVELOPER)
    event = _event_of(delivery)
    again = Delivery(
        project=project,
        forge=delivery.forge,
        delivery_id=f"redelivery:{delivery.pk}:{uuid.uuid4().hex}",
        event=delivery.event,
        headers=delivery.headers,
        body=bytes(delivery.body),
    )
    _record(again, event)
    target = f"{project} delivery {delivery.pk}"
    AuditEntry.record(
        actor=user.username, action="delivery.redeliver", target=target, became=again.pk
    )
    return again


def _event_of(delivery: Delivery) -> Event:
    """What a delivery told of. Raises Refused for one that told of nothing to build."""
    if delivery.kind in {"push", "tag"}:
        return Push(ref=delivery.ref, sha=delivery.sha, sender=delivery.sender)
    body = bytes(delivery.body)
    if delivery.forge in FORGES and 0 < len(body) < KEPT_BODY:
        forge = FORGES[delivery.forge]
        with suppress(Malformed):
            kind = str(delivery.headers.get("Content-Type", ""))
            events = forge.read(delivery.event, payload_of(kind, forge, body))
            if len(events) == 1 and not isinstance(events[0], Nothing):
                return events[0]
    raise Refused(
        f"Delivery {delivery.pk} told of nothing that could be built.",
        code="delivery.nothing",
        hint="Only a push or a pull request can be delivered again.",
    )


def forget_old() -> int:
    """Delete deliveries older than KEPT, but for the last word on each ref; how many they were."""
    old = Delivery.objects.filter(received_at__lt=timezone.now() - KEPT)
    gone = old.exclude(verdict=Verdict.ACCEPTED, superseded=False)[:FORGOTTEN_AT_A_TIME]
    return Delivery.objects.filter(pk__in=list(gone.values_list("pk", flat=True))).delete()[0]


def ingest_push(project_id: int, push_id: str) -> str:
    """Record a push to our own Git and queue its pipelines; what its pusher should read.

    Called by the web process while the push's hook waits. Done once however often it is called.
    """
    project = Project.objects.get(pk=project_id)
    push = spool.find(git_dir(project), push_id)
    return _ingest(project, push) if push else ""


def ingest_spools() -> int:
    """Record the pushes whose web process died before it could; the number of them."""
    pushes = 0
    for project in Project.objects.filter(clone_url=""):
        try:
            pushes += _ingest_waiting(project)
        except Exception:
            # The next round tries again; another project's pushes must not wait for it.
            log.exception("the pushes to %s could not be looked at", project)
    return pushes


def _ingest_waiting(project: Project) -> int:
    pushes = 0
    for push in spool.waiting(git_dir(project)):
        try:
            _ingest(project, push)
        except Exception:
            log.exception("push %s to %s could not be recorded", push.id, project)
        else:
            pushes += 1
    return pushes


def _ingest(project: Project, push: HostedPush) -> str:
    said, failures = [], []
    for update in push.updates:
        try:
            said.append(_said(_ingest_update(project, push, update)))
        except Exception as error:
            failures.append(error)  # the other refs of this push need not wait for it
    if failures:
        raise failures[0]
    spool.forget(push)
    return "".join(f"{line}\n" for line in said)


def _ingest_update(project: Project, push: HostedPush, update: Update) -> Delivery:
    try:
        for _ in range(runner.RACES):
            with suppress(_Moved):
                return _record_update(project, push, update, _look(project, push, update))
        raise RuntimeError(f"{update.ref} moves too fast")  # the spool is looked at again
    except runner.AWAY:
        raise  # nothing could be written down either
    except Exception as error:
        if push.age < runner.PATIENCE.total_seconds():
            raise
        return _give_up(project, push, update, error)


class _Moved(Exception):
    """Another pipeline of the ref was queued between looking at Git and taking the lock."""


def _look(project: Project, push: HostedPush, update: Update) -> runner.Seen | None:
    """What Git has of an update, asked under no lock; None for what starts nothing."""
    delivery = _hosted(project, push, update)
    delivery.ref, delivery.sha = update.ref, update.new
    kind = kind_of(update.ref)
    if kind == "other" or is_null(update.new) or not is_ref(update.ref):
        return None
    if questions.is_known(delivery):
        return None
    delivery.kind = kind
    return runner.look_at_hosted(delivery)


@transaction.atomic
def _record_update(
    project: Project, push: HostedPush, update: Update, seen: runner.Seen | None
) -> Delivery:
    """Delivery and pipeline in one transaction: the commit is here, no worker need fetch it.

    Raises _Moved when what was ``seen`` holds no more.
    """
    delivery = _hosted(project, push, update)
    try:
        check_ref(update.ref)
    except BadName as error:
        # Git took it, so its pusher cannot be refused any more; only told.
        event: Event = Nothing(str(error))
    else:
        event = Push(ref=update.ref, sha=update.new, sender=push.user)
    delivery, new = _record(delivery, event, promise=False)
    starts = new and delivery.verdict == Verdict.ACCEPTED
    if starts and not (seen and runner.start_hosted(delivery, seen)):
        raise _Moved
    return delivery


def _give_up(project: Project, push: HostedPush, update: Update, error: Exception) -> Delivery:
    """The delivery of an update that cannot be recorded otherwise, so that its push may rest."""
    delivery = _hosted(project, push, update)
    delivery.verdict, delivery.detail = Verdict.FAILED, runner.explain(error)
    delivery.ref, delivery.sha = update.ref[:MAX_REF], update.new
    delivery.save(force_insert=True)
    return delivery


def _hosted(project: Project, push: HostedPush, update: Update) -> Delivery:
    return Delivery(
        project=project,
        forge=HOSTED,
        # The ref tells the lines of one push apart, however many of them a sweep finds.
        delivery_id=f"{push.id}:{hashlib.sha256(update.ref.encode()).hexdigest()[:16]}",
        event="push",
    )


def _record(delivery: Delivery, event: Event, *, promise: bool = True) -> tuple[Delivery, bool]:
    # The project's row is the lock under which the two unique keys are looked at. SQLite's lock is
    # the transaction itself, which is IMMEDIATE.
    if connection.features.has_select_for_update:
        Project.objects.select_for_update().values_list("pk").get(pk=delivery.project_id)
    earlier = _earlier(delivery) if questions.is_known(delivery) else None
    if earlier and not (promise and earlier.in_vain):
        return earlier, False
    _judge(delivery, event)
    if earlier:
        delivery.pk, delivery.received_at = earlier.pk, timezone.now()
    delivery.save(force_insert=earlier is None)
    pulls.attach(delivery)
    if promise and delivery.verdict == Verdict.ACCEPTED:
        outbox.promise("delivery.accepted", delivery.pk)
    return delivery, True


def _earlier(delivery: Delivery) -> Delivery:
    known = Delivery.objects.filter(
        project=delivery.project, forge=delivery.forge, delivery_id=delivery.delivery_id
    )
    return known.select_related("project", "pipeline").get()


def _judge(delivery: Delivery, event: Event) -> None:
    """Set what the delivery means and the verdict on it."""
    if isinstance(event, Unreadable):
        delivery.verdict, delivery.detail = Verdict.FAILED, event.reason
        return
    delivery.verdict = Verdict.IGNORED
    if delivery.project.archived_at:
        delivery.detail = f"{delivery.project} is archived: nothing of it is built."
        return
    if isinstance(event, Nothing):
        delivery.detail = event.reason
        if event.look:
            Poll.objects.filter(project=delivery.project_id).update(next_at=timezone.now())
        return
    if isinstance(event, PullRequest):
        found = pulls.note(delivery, event)
        if found is None:
            return
        event = found
    if is_gits_ref(event.ref) and not is_ref(event.ref):
        # A forge that is refused again and again turns its webhook off; who may push could do that.
        delivery.ref, delivery.detail = event.ref[:MAX_REF], _not_built(event.ref)
        return
    _describe(delivery, event)
    if delivery.kind == "delete":
        delivery.detail = f"{event.ref} was deleted: there is nothing to build."
    elif delivery.kind == "other":
        delivery.detail = f"{event.ref} is no branch and no tag: nothing is built."
    elif delivery.kind == PULL and not pulls.is_approved(delivery):
        pulls.wait(delivery)
    else:
        judge_push(delivery)


def _not_built(ref: str) -> str:
    return (
        f"{ref[:80]!r} is not built: no part of a ref may begin with '-', and all of it may have "
        f"{MAX_REF} bytes. Push the commit under another name."
    )


def kind_of(ref: str) -> str:
    """``push``, ``tag`` or ``other``."""
    kinds = {"refs/heads/": "push", "refs/tags/": "tag"}
    return next((kinds[prefix] for prefix in kinds if ref.startswith(prefix)), "other")


def _describe(delivery: Delivery, event: Push) -> None:
    try:
        delivery.ref, delivery.sha = check_ref(event.ref), check_sha(event.sha)
    except BadName as error:
        raise Malformed(str(error)) from error
    delivery.sender = event.sender
    kind = kind_of(event.ref)
    if delivery.pull_request and delivery.pull_request.from_fork:
        kind = PULL if kind == "other" else "other"
    delivery.kind = "delete" if is_null(event.sha) else kind


def judge_push(delivery: Delivery) -> None:
    """A twin is the last word on the same ref; going back to an earlier commit has none."""
    delivery.verdict = Verdict.ACCEPTED
    if not questions.has_last(delivery):
        return
    accepted = Delivery.objects.filter(
        project=delivery.project,
        ref=delivery.ref,
        kind=delivery.kind,
        verdict=Verdict.ACCEPTED,
        superseded=False,
    )
    last = accepted.select_related("pipeline").first()
    if last and last.sha == delivery.sha and not last.in_vain:
        runner.mark_duplicate(delivery, last.pipeline)
        return
    if last:
        accepted.update(superseded=True)


def _said(delivery: Delivery) -> str:
    """One line for the pusher's terminal."""
    pipeline = delivery.pipeline
    if pipeline is None:
        return delivery.detail
    address = f"pipeline #{pipeline.number} {settings.GANTRY.url}{pipeline.get_absolute_url()}"
    if delivery.verdict == Verdict.DUPLICATE:
        return f"{delivery.sha[:8]} is what was built last on this branch: {address}"
    return address
