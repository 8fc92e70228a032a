"""Bitbucket Data Center: signed as the Cloud's, ``repo:refs_changed`` with several changes.

https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html. ``toHash`` is all
zeros for what was deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ciserver.webhooks.forges.bitbucket import MAX_CHANGES, verify
from ciserver.webhooks.forges.events import (
    MAX_EVENT,
    Envelope,
    Event,
    Malformed,
    Nothing,
    Push,
    member,
    printable,
    text,
    word,
)

__all__ = ["FORM_FIELD", "HEADERS", "NAME", "envelope", "read", "verify"]

NAME = "bitbucket-server"
FORM_FIELD = ""
HEADERS = ("X-Event-Key", "X-Request-Id", "User-Agent", "Content-Type")


def envelope(headers: Mapping[str, str]) -> Envelope:
    return Envelope(
        event=printable(headers.get("X-Event-Key", ""), MAX_EVENT),
        delivery_id=printable(headers.get("X-Request-Id", ""), 80),
    )


def read(event: str, payload: object) -> Sequence[Event]:
    """The events of a verified body, one for each ref. Raises Malformed."""
    if event == "diagnostics:ping":
        return [Nothing("Bitbucket's ping: the webhook works.")]
    if event != "repo:refs_changed":
        return [Nothing(f"Nothing is built for the event {event!r}.")]
    changes = member(payload, "changes")
    if not isinstance(changes, list) or len(changes) > MAX_CHANGES:
        raise Malformed(f"'changes' must be a list of at most {MAX_CHANGES}.")
    sender = word(payload, "actor", "name")
    return [
        Push(ref=text(change, "ref", "id"), sha=text(change, "toHash"), sender=sender)
        for change in changes
    ] or [Nothing("No ref was changed.")]
