"""Forgejo: as Gitea, under its own headers.

https://forgejo.org/docs/latest/user/webhooks/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ciserver.lib.crypto import Secret
from ciserver.webhooks.forges.events import MAX_EVENT, Envelope, printable
from ciserver.webhooks.forges.gitea import FORM_FIELD, json_of, read
from ciserver.webhooks.forges.signing import signed

__all__ = ["FORM_FIELD", "HEADERS", "NAME", "envelope", "read", "verify"]

NAME = "forgejo"
HEADERS = ("X-Forgejo-Event", "X-Forgejo-Event-Type", "X-Forgejo-Delivery", "Content-Type")


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret]) -> bool:
    """True when the JSON was signed with one of ``secrets``. Takes the same time either way."""
    return signed(headers.get("X-Forgejo-Signature", ""), json_of(headers, body), secrets)


def envelope(headers: Mapping[str, str]) -> Envelope:
    return Envelope(
        event=printable(headers.get("X-Forgejo-Event", ""), MAX_EVENT),
        delivery_id=printable(headers.get("X-Forgejo-Delivery", ""), 80),
    )
