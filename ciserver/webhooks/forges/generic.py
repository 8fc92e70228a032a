"""Whatever else can sign: ``X-Gantry-Signature: sha256=HEX`` over the raw body.

The body is ``{"ref": "refs/heads/main", "after": "FULL-SHA", "sender": "NAME"}``; the sender may
be left out. ``X-Gantry-Event`` is ``push`` unless given, ``X-Gantry-Delivery`` an id of yours.
For ``pull_request`` it is ``{"number": 7, "sha": "FULL-SHA", "head": "refs/heads/topic", "base":
"refs/heads/main", "ref": "refs/pull/7/head", "head_repository": "ID", "base_repository": "ID"}``;
``"open": false`` ends it, ``title`` and ``sender`` may be left out.
"""

from __future__ import annotations

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
    member,
    number,
    printable,
    text,
    word,
)
from ciserver.webhooks.forges.signing import signed

NAME = "generic"
FORM_FIELD = ""
HEADERS = ("X-Gantry-Event", "X-Gantry-Delivery", "User-Agent", "Content-Type")


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret]) -> bool:
    """True when the body was signed with one of ``secrets``. Takes the same time either way."""
    return signed(headers.get("X-Gantry-Signature", ""), body, secrets, prefix="sha256=")


def envelope(headers: Mapping[str, str]) -> Envelope:
    return Envelope(
        event=printable(headers.get("X-Gantry-Event", "push"), MAX_EVENT),
        delivery_id=printable(headers.get("X-Gantry-Delivery", ""), 80),
    )


def read(event: str, payload: object) -> Sequence[Event]:
    """The events of a verified body. Raises Malformed."""
    if event == "pull_request":
        return [_pull_request(payload)]
    if event != "push":
        return [Nothing(f"Nothing is built for the event {event!r}.")]
    sender = word(payload, "sender")
    return [Push(ref=text(payload, "ref"), sha=text(payload, "after"), sender=sender)]


def _pull_request(payload: object) -> Event:
    return PullRequest(
        number=number(payload, "number"),
        sha=text(payload, "sha"),
        head=text(payload, "head"),
        base=text(payload, "base"),
        ref=text(payload, "ref"),
        head_repository=identity(payload, "head_repository"),
        base_repository=identity(payload, "base_repository"),
        open=member(payload, "open") is not False,
        title=word(payload, "title", limit=MAX_TITLE),
        sender=word(payload, "sender"),
    )
