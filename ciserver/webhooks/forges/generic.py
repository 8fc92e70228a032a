"""Whatever else can sign: ``X-Gantry-Signature: sha256=HEX`` over the raw body.

The body is ``{"ref": "refs/heads/main", "after": "FULL-SHA", "sender": "NAME"}``; the sender may
be left out. ``X-Gantry-Event`` is ``push`` unless given, ``X-Gantry-Delivery`` an id of yours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ciserver.lib.crypto import Secret
from ciserver.webhooks.forges.events import (
    MAX_EVENT,
    Envelope,
    Event,
    Nothing,
    Push,
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
    if event != "push":
        return [Nothing(f"Nothing is built for the event {event!r}.")]
    sender = word(payload, "sender")
    return [Push(ref=text(payload, "ref"), sha=text(payload, "after"), sender=sender)]
