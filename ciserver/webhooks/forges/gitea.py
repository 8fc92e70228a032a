"""Gitea: ``X-Gitea-Signature``, bare hex over the JSON, also where that travels in a form.

https://docs.gitea.com/usage/webhooks. Gitea sends GitHub's event headers too, and leaves the
signature empty when it has no secret. Each replay has a new id.
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
from ciserver.webhooks.forges.forms import field, is_form
from ciserver.webhooks.forges.github import pull_request
from ciserver.webhooks.forges.signing import signed

NAME = "gitea"
PULLS = {"pull_request", "pull_request_sync"}
ACTIONS = {"opened": True, "synchronized": True, "reopened": True, "closed": False}
FORM_FIELD = "payload"
HEADERS = ("X-Gitea-Event", "X-Gitea-Event-Type", "X-Gitea-Delivery", "Content-Type")


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret]) -> bool:
    """True when the JSON was signed with one of ``secrets``. Takes the same time either way."""
    return signed(headers.get("X-Gitea-Signature", ""), json_of(headers, body), secrets)


def json_of(headers: Mapping[str, str], body: bytes) -> bytes:
    """What the signature covers: the body, or the form's field in it."""
    return field(FORM_FIELD, body) if is_form(headers.get("Content-Type", "")) else body


def envelope(headers: Mapping[str, str]) -> Envelope:
    return Envelope(
        event=printable(headers.get("X-Gitea-Event", ""), MAX_EVENT),
        delivery_id=printable(headers.get("X-Gitea-Delivery", ""), 80),
    )


def read(event: str, payload: object) -> Sequence[Event]:
    """The events of a verified body. Raises Malformed."""
    if event in PULLS:
        return [pull_request(payload, ACTIONS)]
    if event != "push":
        return [Nothing(f"Nothing is built for the event {event!r}.")]
    sender = word(payload, "pusher", "login")
    return [Push(ref=text(payload, "ref"), sha=text(payload, "after"), sender=sender)]
