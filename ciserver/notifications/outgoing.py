"""Webhooks that go out: endpoints, what is due, and sending it as Standard Webhooks has it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from ciserver.accounts.models import AuditEntry, User
from ciserver.celery import app
from ciserver.lib.crypto import SealBroken, Secret, seal
from ciserver.lib.problems import Refused
from ciserver.notifications import sending
from ciserver.notifications.forges.requests import Request
from ciserver.notifications.models import Endpoint, Event, Message
from ciserver.projects import origins
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require

log = logging.getLogger(__name__)
TASK = "ciserver.notifications.tasks.send_message"
TYPES = (
    "pipeline.queued",
    "pipeline.running",
    "pipeline.passed",
    "pipeline.failed",
    "pipeline.cancelled",
    "release.made",
    "deployment.waiting",
    "deployment.queued",
    "deployment.running",
    "deployment.succeeded",
    "deployment.failed",
    "deployment.superseded",
    "deployment.cancelled",
)
MOST = 20  # endpoints of one project
OLD_COUNTS = timedelta(days=7)
KEPT = timedelta(days=30)
AT_A_TIME = 50
CLAIM = timedelta(minutes=2)  # then a message whose worker died is due again
FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(hours=6)
MOST_ATTEMPTS = 18  # the pauses double: more than two days in all


@transaction.atomic
def add(
    *, project: Project, user: User, url: str, types: Iterable[str] = ()
) -> tuple[Endpoint, Secret]:
    """An endpoint and its secret, which is shown this once. Needs the role maintainer."""
    require(user, project, Role.MAINTAINER)
    if project.endpoints.count() >= MOST:
        raise Refused(
            f"A project has up to {MOST} webhooks.",
            code="webhooks.many",
            hint="Remove one that is not used.",
        )
    last = Event.objects.order_by("-id").values_list("id", flat=True).first() or 0
    row = Endpoint(project=project, url=_fit(url), types=_known(types), after=last)
    row.save()
    secret = _new_secret(row)
    row.save()
    _record(user, row, "add")
    return row, secret


@transaction.atomic
def change(
    *,
    endpoint: Endpoint,
    user: User,
    url: str | None = None,
    types: Iterable[str] | None = None,
    active: bool | None = None,
) -> Endpoint:
    """What is left out stays. Needs the role maintainer."""
    require(user, endpoint.project, Role.MAINTAINER)
    if url is not None:
        endpoint.url = _fit(url)
    if types is not None:
        endpoint.types = _known(types)
    if active is not None:
        endpoint.active = active
    endpoint.save(update_fields=["url", "types", "active"])
    _record(user, endpoint, "change")
    return endpoint


@transaction.atomic
def rotate(*, endpoint: Endpoint, user: User) -> Secret:
    """A new secret; for seven days both sign. Needs the role maintainer."""
    require(user, endpoint.project, Role.MAINTAINER)
    with suppress(SealBroken):  # one that does not open signs nothing any more
        before = endpoint.secrets()[0]
        endpoint.old_secret_sealed = seal(before, endpoint.old_secret_place)
        endpoint.old_until = timezone.now() + OLD_COUNTS
    secret = _new_secret(endpoint)
    endpoint.save(update_fields=["secret_sealed", "old_secret_sealed", "old_until"])
    _record(user, endpoint, "rotate")
    return secret


@transaction.atomic
def remove(*, endpoint: Endpoint, user: User) -> None:
    """With the record of what was sent there. Needs the role maintainer."""
    require(user, endpoint.project, Role.MAINTAINER)
    _record(user, endpoint, "remove")
    endpoint.delete()


@transaction.atomic
def ping(*, endpoint: Endpoint, user: User) -> Message:
    """Send a ``test.ping`` now. Needs the role maintainer."""
    require(user, endpoint.project, Role.MAINTAINER)
    _record(user, endpoint, "test")
    return _message(endpoint, "test.ping", timezone.now().isoformat(), {"by": user.username})


@transaction.atomic
def redeliver(*, message: Message, user: User) -> Message:
    """Send the same once more, under its own id. Needs the role maintainer."""
    require(user, message.endpoint.project, Role.MAINTAINER)
    _record(user, message.endpoint, "redeliver")
    message.attempts, message.next_at, message.sent_at = 0, timezone.now(), None
    message.save(update_fields=["attempts", "next_at", "sent_at"])
    return message


def spread() -> int:
    """Make messages of events that endpoints were not given yet, and have them sent. A chore."""
    last = Event.objects.order_by("-id").values_list("id", flat=True).first() or 0
    for endpoint in Endpoint.objects.filter(after__lt=last):
        _give(endpoint)
    return wake()


@transaction.atomic
def _give(endpoint: Endpoint) -> None:
    events = list(
        Event.objects.filter(project=endpoint.project_id, id__gt=endpoint.after).order_by("id")[
            :AT_A_TIME
        ]
    )
    if not events:
        return
    mine = Endpoint.objects.filter(pk=endpoint.pk, after=endpoint.after)
    if not mine.update(after=events[-1].id):
        return  # another scheduler was first
    for event in events:
        if endpoint.active and (not endpoint.types or event.type in endpoint.types):
            _message(endpoint, event.type, event.at.isoformat(), event.data)


def _message(endpoint: Endpoint, kind: str, at: str, data: Any) -> Message:
    body = json.dumps({"type": kind, "timestamp": at, "data": data}, separators=(",", ":"))
    name = f"msg_{secrets.token_hex(16)}"
    now = timezone.now()
    return Message.objects.create(endpoint=endpoint, name=name, type=kind, body=body, next_at=now)


def wake() -> int:
    """Have workers send what is due; the number of messages."""
    due = Message.objects.filter(next_at__lte=timezone.now(), endpoint__active=True)
    return sum(_wake(message) for message in due.order_by("next_at")[:AT_A_TIME])


def _wake(message: Message) -> bool:
    mine = Message.objects.filter(pk=message.pk, next_at=message.next_at)
    if not mine.update(next_at=timezone.now() + CLAIM):
        return False
    try:
        app.send_task(TASK, args=[message.pk], expires=CLAIM.total_seconds())
    except Exception:
        Message.objects.filter(pk=message.pk).update(next_at=message.next_at)
        raise
    return True


def deliver(message_id: int) -> None:
    """Send one, and note how that went. May run twice: receivers know it by its id."""
    row = Message.objects.select_related("endpoint").filter(pk=message_id).first()
    if row is None or row.next_at is None or not row.endpoint.active:
        return
    try:
        outcome = _send(row)
    except Exception as error:  # it counts as an attempt, or it would be tried for ever
        log.exception("the webhook %s could not be sent", row)
        outcome = sending.Outcome(f"Gantry could not send it ({type(error).__name__}).")
    _settle(row, outcome)


def _send(row: Message) -> sending.Outcome:
    try:
        keys = row.endpoint.secrets()
    except (SealBroken, ValueError):
        return sending.Outcome("The secret does not open: make a new one.", final=True)
    at = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "webhook-id": row.name,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(sign(key, row.name, at, row.body) for key in keys),
    }
    request = Request(row.endpoint.url, {}, headers, row.body.encode(), "receiver")
    return sending.send(request, keys[0].reveal())


def sign(secret: Secret, name: str, at: int, body: str) -> str:
    """``v1,BASE64``: HMAC-SHA256 of ``ID.TIMESTAMP.BODY`` with what follows ``whsec_``."""
    key = base64.b64decode(secret.reveal().removeprefix("whsec_"))
    mac = hmac.digest(key, f"{name}.{at}.{body}".encode(), hashlib.sha256)
    return f"v1,{base64.b64encode(mac).decode()}"


def _settle(row: Message, outcome: sending.Outcome) -> None:
    now = timezone.now()
    same = Message.objects.filter(pk=row.pk, attempts=row.attempts)
    if not outcome.error:
        same.update(sent_at=now, next_at=None, error="", attempts=F("attempts") + 1)
        return
    log.info("the webhook %s was not taken: %s", row, outcome.error)
    # A receiver that answers 404 today may be there again tomorrow: only our own faults are final.
    given_up = row.attempts + 1 >= MOST_ATTEMPTS or (outcome.final and not outcome.answered)
    pause = max(min(FIRST_PAUSE * 2**row.attempts, LONGEST_PAUSE), outcome.wait or FIRST_PAUSE)
    same.update(
        attempts=F("attempts") + 1, next_at=None if given_up else now + pause, error=outcome.error
    )


def forget_old() -> int:
    """A chore: the number of events and messages that are not kept any longer."""
    old = timezone.now() - KEPT
    gone = Message.objects.filter(Q(created_at__lt=old), next_at=None).delete()[0]
    return gone + Event.objects.filter(at__lt=old).delete()[0]


def _new_secret(row: Endpoint) -> Secret:
    secret = Secret(f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}")
    row.secret_sealed = seal(secret, row.secret_place)
    return secret


def _fit(url: str) -> str:
    try:
        origins.check(url)
    except Refused as refusal:
        raise Refused(refusal.message, code="webhooks.url", hint=refusal.hint, status=400) from None
    if len(url) > 500:
        raise Refused(
            "The address is too long.", code="webhooks.url", status=400, hint="Use 500 characters."
        )
    return url


def _known(types: Iterable[str]) -> list[str]:
    wanted = set(types)
    if unknown := wanted - set(TYPES):
        raise Refused(
            f"There is no event {sorted(unknown)[0][:40]!r}.",
            code="webhooks.types",
            status=400,
            hint=f"Use: {', '.join(TYPES)}.",
        )
    return [kind for kind in TYPES if kind in wanted]


def _record(user: User, row: Endpoint, verb: str) -> None:
    AuditEntry.record(
        actor=user.username,
        action=f"project.webhook.{verb}",
        target=row.project.slug,
        webhook=row.pk,
    )
