"""GitHub: ``X-Hub-Signature-256`` over the raw body, ``push`` and ``pull_request`` events.

https://docs.github.com/webhooks. GitHub never delivers again by itself; its headers are not
covered by the signature, so the event's name is only believed as far as the body bears it out.
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
    number,
    printable,
    text,
    word,
)
from ciserver.webhooks.forges.signing import signed

NAME = "github"
FORM_FIELD = "payload"
HEADERS = ("X-GitHub-Event", "X-GitHub-Delivery", "X-GitHub-Hook-ID", "User-Agent", "Content-Type")


# Of all that happens to a pull request, what brings commits or ends it.
ACTIONS = {"opened": True, "synchronize": True, "reopened": True, "closed": False}


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
    if event == "pull_request":
        return [pull_request(payload, ACTIONS)]
    if event != "push":
        return [Nothing(f"Nothing is built for the event {event!r}.")]
    sender = word(payload, "sender", "login")
    return [Push(ref=text(payload, "ref"), sha=text(payload, "after"), sender=sender)]


def pull_request(payload: object, actions: Mapping[str, bool]) -> Event:
    """Of GitHub's shape. ``actions`` tells whether the request is open after each."""
    action = text(payload, "action")
    if action not in actions:
        return Nothing(f"Nothing is built for the action {printable(action, 60)!r}.")
    head, base = (("pull_request", side) for side in ("head", "base"))
    found = number(payload, "number")
    return PullRequest(
        number=found,
        sha=text(payload, *head, "sha"),
        head=f"refs/heads/{text(payload, *head, 'ref')}",
        base=f"refs/heads/{text(payload, *base, 'ref')}",
        ref=f"refs/pull/{found}/head",
        head_repository=identity(payload, *head, "repo", "id"),
        base_repository=identity(payload, *base, "repo", "id"),
        open=actions[action],
        title=word(payload, "pull_request", "title", limit=MAX_TITLE),
        sender=word(payload, "sender", "login"),
    )
