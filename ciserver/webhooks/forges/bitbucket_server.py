"""Bitbucket Data Center: signed as the Cloud's, ``repo:refs_changed`` with several changes.

https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html. ``toHash`` is all
zeros for what was deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ciserver.webhooks.forges.bitbucket import MAX_CHANGES, verify
from ciserver.webhooks.forges.events import (
    MAX_EVENT,
    MAX_TITLE,
    Envelope,
    Event,
    Malformed,
    Nothing,
    PullRequest,
    Push,
    first_of,
    identity,
    member,
    number,
    printable,
    text,
    word,
)

__all__ = ["FORM_FIELD", "HEADERS", "NAME", "envelope", "read", "verify"]

NAME = "bitbucket-server"
FORM_FIELD = ""
PULLS = {
    "pr:opened": True,
    "pr:from_ref_updated": True,
    "pr:merged": False,
    "pr:declined": False,
    "pr:deleted": False,
}
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
    if event in PULLS:
        return [_pull_request(event, payload)]
    if event != "repo:refs_changed":
        return [Nothing(f"Nothing is built for the event {event!r}.")]
    changes = member(payload, "changes")
    if not isinstance(changes, list):
        raise Malformed("'changes' must be a list.")
    sender = word(payload, "actor", "name")
    taken, left = first_of(changes, MAX_CHANGES)
    found = [
        Push(ref=text(change, "ref", "id"), sha=text(change, "toHash"), sender=sender)
        for change in taken
    ]
    return [*found, *left] or [Nothing("No ref was changed.")]


def _pull_request(event: str, payload: object) -> Event:
    source, target = (("pullRequest", side) for side in ("fromRef", "toRef"))
    found = number(payload, "pullRequest", "id")
    return PullRequest(
        number=found,
        sha=text(payload, *source, "latestCommit"),
        head=text(payload, *source, "id"),
        base=text(payload, *target, "id"),
        ref=f"refs/pull-requests/{found}/from",
        head_repository=identity(payload, *source, "repository", "id"),
        base_repository=identity(payload, *target, "repository", "id"),
        open=PULLS[event],
        title=word(payload, "pullRequest", "title", limit=MAX_TITLE),
        sender=word(payload, "actor", "name"),
    )
