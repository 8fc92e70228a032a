"""The forges we listen to: one file each with the same names, and the table of them.

To add one: write ``forges/NAME.py`` with the members of ``Forge`` and add a row to FORGES.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ciserver.lib.crypto import Secret
from ciserver.webhooks.forges import (
    bitbucket,
    bitbucket_server,
    forgejo,
    generic,
    gitea,
    github,
    gitlab,
)
from ciserver.webhooks.forges.events import Envelope, Event


class Forge(Protocol):
    """A forge's way of telling. The forge is chosen by URL, never by what a request looks like."""

    @property
    def NAME(self) -> str:
        """Its word in the URL ``/hooks/NAME/PROJECT/`` and in Delivery.forge."""

    @property
    def HEADERS(self) -> Sequence[str]:
        """The headers worth keeping with a delivery. Never one that holds a secret."""

    @property
    def FORM_FIELD(self) -> str:
        """The field that holds the JSON when a body is a form; empty if this is never so."""

    def verify(self, headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret]) -> bool:
        """True when ``body``, as it came, is signed with one of ``secrets``, in constant time."""

    def envelope(self, headers: Mapping[str, str]) -> Envelope:
        """The event's name and the delivery's id, both short and printable."""

    def read(self, event: str, payload: object) -> Sequence[Event]:
        """What a verified body means, one event at least. Raises Malformed for a wrong shape."""


FORGES: Mapping[str, Forge] = {
    forge.NAME: forge
    for forge in (github, gitlab, gitea, forgejo, bitbucket, bitbucket_server, generic)
}
