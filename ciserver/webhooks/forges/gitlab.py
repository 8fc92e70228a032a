"""GitLab: the secret itself in ``X-Gitlab-Token``, or a signing token's ``webhook-signature``.

https://docs.gitlab.com/user/project/integrations/webhooks/. The signature follows Standard
Webhooks: ``v1,BASE64`` over ``ID.TIMESTAMP.BODY``, with the key behind ``whsec_``. The other id
headers of GitLab name the hook or a chain of events, not the delivery.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Mapping, Sequence

from ciserver.lib.crypto import Secret
from ciserver.webhooks.forges.events import (
    MAX_EVENT,
    MAX_TITLE,
    Envelope,
    Event,
    Nothing,
    PullRequest,
    Push,
    identity,
    is_null,
    number,
    printable,
    text,
    word,
)

NAME = "gitlab"
FORM_FIELD = ""
HEADERS = ("X-Gitlab-Event", "Idempotency-Key", "X-Gitlab-Instance", "User-Agent", "Content-Type")
TOLERANCE = 300  # seconds by which a signed time may differ from ours
PUSHES = {"Push Hook", "Tag Push Hook"}
MERGE_REQUEST = "Merge Request Hook"
ACTIONS = {"open": True, "update": True, "reopen": True, "close": False, "merge": False}


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret]) -> bool:
    """True when the token is one of ``secrets``, or signed with one of them a short time ago."""
    token = headers.get("X-Gitlab-Token", "").encode("latin-1", "replace")
    given = headers.get("webhook-signature", "")
    good = False
    for secret in secrets:
        good |= hmac.compare_digest(token, secret.reveal().encode())
        good |= _signed(given, headers, body, secret)
    return good


def _signed(given: str, headers: Mapping[str, str], body: bytes, secret: Secret) -> bool:
    stamp = headers.get("webhook-timestamp", "")
    start = f"{headers.get('webhook-id', '')}.{stamp}.".encode("latin-1", "replace")
    signer = hmac.new(key_of(secret), start, "sha256")
    signer.update(body)  # not start + body: that would be a second copy of 25 MiB
    mac = base64.b64encode(signer.digest())
    good = False
    for signature in given.split(" ")[:4]:
        good |= hmac.compare_digest(signature.encode("latin-1", "replace"), b"v1," + mac)
    return good and _is_fresh(stamp)


def key_of(secret: Secret) -> bytes:
    """Of a signature: what a signing token holds, or the secret's own bytes."""
    value = secret.reveal()
    if not value.startswith("whsec_"):
        return value.encode()
    try:
        return base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        return value.encode()


def _is_fresh(stamp: str) -> bool:
    known = stamp.isascii() and stamp.isdecimal() and len(stamp) < 13
    return known and abs(time.time() - int(stamp)) <= TOLERANCE


def envelope(headers: Mapping[str, str]) -> Envelope:
    delivery = headers.get("webhook-id") or headers.get("Idempotency-Key", "")
    return Envelope(
        event=printable(headers.get("X-Gitlab-Event", ""), MAX_EVENT),
        delivery_id=printable(delivery, 80),
    )


def read(event: str, payload: object) -> Sequence[Event]:
    """The events of a verified body. Raises Malformed."""
    if event == MERGE_REQUEST:
        return [_merge_request(payload)]
    if event not in PUSHES:
        return [Nothing(f"Nothing is built for the event {event!r}.")]
    sender = word(payload, "user_username")
    return [Push(ref=text(payload, "ref"), sha=text(payload, "after"), sender=sender)]


def _merge_request(payload: object) -> Event:
    place = "object_attributes"
    if is_null(payload, place, "action"):
        return Nothing("GitLab's test of a merge request: it names no action.")
    if is_null(payload, place, "last_commit"):
        return Nothing("This merge request has no commit.")
    action = text(payload, place, "action")
    if action not in ACTIONS:
        return Nothing(f"Nothing is built for the action {printable(action, 60)!r}.")
    found = number(payload, place, "iid")
    return PullRequest(
        number=found,
        sha=text(payload, place, "last_commit", "id"),
        head=f"refs/heads/{text(payload, place, 'source_branch')}",
        base=f"refs/heads/{text(payload, place, 'target_branch')}",
        ref=f"refs/merge-requests/{found}/head",
        head_repository=identity(payload, place, "source_project_id"),
        base_repository=identity(payload, place, "target_project_id"),
        open=ACTIONS[action],
        title=word(payload, place, "title", limit=MAX_TITLE),
        sender=word(payload, "user", "username"),
    )
