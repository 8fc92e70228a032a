"""Bitbucket Cloud: ``X-Hub-Signature: sha256=…``, and several changes in one ``repo:push``.

https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/. The header has the name of
GitHub's old SHA-1 one. ``new`` is null for what was deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ciserver.lib.crypto import Secret
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
    is_null,
    member,
    number,
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
PULLS = {
    "pullrequest:created": True,
    "pullrequest:updated": True,
    "pullrequest:fulfilled": False,
    "pullrequest:rejected": False,
}


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
    if event in PULLS:
        return [_pull_request(event, payload)]
    if event != "repo:push":
        return [Nothing(f"Nothing is built for the event {event!r}.")]
    changes = member(payload, "push", "changes")
    if not isinstance(changes, list):
        raise Malformed("'push.changes' must be a list.")
    sender = word(payload, "actor", "display_name")
    taken, left = first_of(changes, MAX_CHANGES)
    found = [_change(change, sender) for change in taken]
    return [*found, *left] or [Nothing("No ref was changed.")]


def _change(change: object, sender: str) -> Push:
    side = "old" if member(change, "new") is None else "new"
    folder = FOLDERS.get(text(change, side, "type"), "refs/other/")
    sha = "0" * 40 if side == "old" else text(change, "new", "target", "hash")
    return Push(ref=folder + text(change, side, "name"), sha=sha, sender=sender)


def _pull_request(event: str, payload: object) -> Event:
    """Bitbucket Cloud keeps no ref of a fork's commits, and tells 12 digits of a commit."""
    source, target = (("pullrequest", side) for side in ("source", "destination"))
    if is_null(payload, *source, "commit"):
        return Nothing("The commit of this pull request is gone, as with a fork that was deleted.")
    return PullRequest(
        number=number(payload, "pullrequest", "id"),
        sha=text(payload, *source, "commit", "hash"),
        head=f"refs/heads/{text(payload, *source, 'branch', 'name')}",
        base=f"refs/heads/{text(payload, *target, 'branch', 'name')}",
        ref="",
        head_repository=identity(payload, *source, "repository", "uuid"),
        base_repository=identity(payload, *target, "repository", "uuid"),
        open=PULLS[event],
        title=word(payload, "pullrequest", "title", limit=MAX_TITLE),
        sender=word(payload, "actor", "display_name"),
    )
