"""Bitbucket Cloud: ``X-Hub-Signature: sha256=…``, and several changes in one ``repo:push``.

https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/. The header has the name of
GitHub's old SHA-1 one. ``new`` is null for what was deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ciserver.lib.crypto import Secret
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
from ciserver.webhooks.forges.signing import signed

NAME = "bitbucket"
FORM_FIELD = ""
HEADERS = ("X-Event-Key", "X-Request-UUID", "X-Hook-UUID", "X-Attempt-Number", "Content-Type")
FOLDERS = {"branch": "refs/heads/", "tag": "refs/tags/"}
MAX_CHANGES = 100


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret]) -> bool:
    """True when the body was signed with one of ``secrets``. Takes the same time either way."""
    return signed(headers.get("X-Hub-Signature", ""), body, secrets, prefix="sha256=")


def envelope(headers: Mapping[str, str]) -> Envelope:
    return Envelope(
        event=printable(headers.get("X-Event-Key", ""), MAX_EVENT),
        delivery_id=printable(headers.get("X-Request-UUID", ""), 80),
    )


def read(event: str, payload: object) -> Sequence[Event]:
    """The events of a verified body, one for each ref. Raises Malformed."""
    if event != "repo:push":
        return [Nothing(f"Nothing is built for the event {event!r}.")]
    changes = member(payload, "push", "changes")
    if not isinstance(changes, list) or len(changes) > MAX_CHANGES:
        raise Malformed(f"'push.changes' must be a list of at most {MAX_CHANGES}.")
    sender = word(payload, "actor", "display_name")
    return [_change(change, sender) for change in changes] or [Nothing("No ref was changed.")]


def _change(change: object, sender: str) -> Push:
    side = "old" if member(change, "new") is None else "new"
    folder = FOLDERS.get(text(change, side, "type"), "refs/other/")
    sha = "0" * 40 if side == "old" else text(change, "new", "target", "hash")
    return Push(ref=folder + text(change, side, "name"), sha=sha, sender=sender)
