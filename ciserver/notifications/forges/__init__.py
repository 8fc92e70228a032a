"""The forges that show statuses: one file each with the same names, and the table of them.

``generic`` has none. To add one: write ``forges/NAME.py`` with the members of ``Forge`` and add a
row to FORGES.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ciserver.notifications.forges import (
    bitbucket,
    bitbucket_server,
    forgejo,
    gitea,
    github,
    gitlab,
)
from ciserver.notifications.forges.requests import Request, Told


class Forge(Protocol):
    """A forge's way of being told how a commit fares."""

    @property
    def NAME(self) -> str:
        """Its word, as in the address of its webhooks."""

    @property
    def API(self) -> str:
        """Where its public instance is asked; empty when everybody has one of their own."""

    @property
    def REPOSITORY(self) -> str:
        """What names a repository there, for people."""

    @property
    def TOKEN(self) -> str:
        """Which token it takes, for people."""

    def request(self, api: str, repository: str, token: str, told: Told) -> Request:
        """What to send. ``api`` has no slash at its end, ``repository`` no odd characters."""


FORGES: Mapping[str, Forge] = {
    forge.NAME: forge for forge in (github, gitlab, gitea, forgejo, bitbucket, bitbucket_server)
}
