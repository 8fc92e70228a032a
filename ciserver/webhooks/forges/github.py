"""GitHub: ``X-Hub-Signature-256`` over the raw body, ``push`` events.

https://docs.github.com/webhooks. GitHub never delivers again by itself; its headers are not
covered by the signature, so the event's name is only believed as far as the body bears it out.
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

NAME = "github"
FORM_FIELD = "payload"
HEADERS = ("X-GitHub-Event", "X-GitHub-Delivery", "X-GitHub-Hook-ID", "User-Agent", "Content-Type")


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret]) -> bool:
    """True when the body was signed with one of ``secrets``. Takes the same time either way."""
    return signed(headers.get("X-Hub-Signature-256", ""), body, secrets, prefix="sha256=")


def envelope(headers: Mapping[str, str]) -> Envelope:
    return Envelope(
        event=printable(headers.get("X-GitHub-Event", ""), MAX_EVENT),
        delivery_id=printable(headers.get("X-GitHub-Delivery", ""), 100),
    )


def read(event: str, payload: object) -> Sequence[Event]:
    """The events of a verified body. Raises Malformed."""
    if event == "ping":
        return [Nothing("GitHub's ping: the webhook works.")]
    if event != "push":
        return [Nothing(f"Nothing is built for the event {event!r}.")]
    sender = word(payload, "sender", "login")
    return [Push(ref=text(payload, "ref"), sha=text(payload, "after"), sender=sender)]
