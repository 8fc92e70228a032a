"""What a forge's request comes down to, and careful readers for values that outsiders wrote.

A payload is a hint: Git is asked afterwards whether it is true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_SENDER = 150
MAX_EVENT = 60
MAX_TITLE = 300
MAX_NUMBER = 2**31 - 1


class Malformed(Exception):
    """A well signed body that is not of the forge's shape; the message names the field."""


@dataclass(frozen=True, slots=True)
class Push:
    """``ref`` moved to ``sha``; an all-zero ``sha`` means that it was deleted."""

    ref: str
    sha: str
    sender: str = ""


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A pull request was opened or got commits, or (not ``open``) was merged or closed.

    ``head`` is the full ref in the repository that it comes from; ``ref`` is where the base
    repository keeps its commits for whoever fetches them, empty for a forge that does not.
    Repositories are the forge's own ids, never names; empty for one that is gone. ``sha`` has 12
    digits where a forge tells no more.
    """

    number: int
    sha: str
    head: str
    base: str
    ref: str
    head_repository: str
    base_repository: str
    open: bool = True
    title: str = ""
    sender: str = ""

    @property
    def from_fork(self) -> bool:
        """Trust goes by ids alone: what has none, such as a deleted fork, has none."""
        return not self.head_repository or self.head_repository != self.base_repository


@dataclass(frozen=True, slots=True)
class Nothing:
    """Well signed, of no interest; ``reason`` is a sentence.

    ``look``: the request does not tell all that moved, so that the repository is looked at soon.
    """

    reason: str
    look: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Well signed, but not of the forge's shape; ``reason`` is a sentence."""

    reason: str


Event = Push | PullRequest | Nothing | Unreadable


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the headers say. ``delivery_id`` is empty when the forge sent none."""

    event: str
    delivery_id: str


def member(payload: object, *keys: str) -> Any:
    """``payload[k1][k2]…``, or None where something on the way is missing or is no object."""
    for key in keys:
        if not isinstance(payload, Mapping):
            return None
        payload = payload.get(key)
    return payload


def is_null(payload: object, *keys: str) -> bool:
    """Whether what holds the last of ``keys`` is there, and says nothing of it or null."""
    holder = member(payload, *keys[:-1])
    return isinstance(holder, Mapping) and holder.get(keys[-1]) is None


def text(payload: object, *keys: str) -> str:
    """The string there. Raises Malformed, naming the field, for anything else."""
    value = member(payload, *keys)
    if not isinstance(value, str):
        raise Malformed(f"'{'.'.join(keys)}' must be a string.")
    return value


def number(payload: object, *keys: str) -> int:
    """The number of a pull request there. Raises Malformed for anything else."""
    value = member(payload, *keys)
    if type(value) is not int or not 0 < value <= MAX_NUMBER:
        raise Malformed(f"'{'.'.join(keys)}' must be a number above 0.")
    return value


def first_of(changes: list[object], most: int) -> tuple[list[object], list[Nothing]]:
    """As many changes as are taken from one request, and a word on the others."""
    more = len(changes) - most
    words = f"{more} more refs are told of in this request: a look at the repository finds them."
    return changes[:most], [Nothing(words, look=True)] if more > 0 else []


def identity(payload: object, *keys: str) -> str:
    """A forge's id of something, a number or a word; empty where there is none."""
    value = member(payload, *keys)
    return str(value)[:100] if type(value) in {int, str} else ""


def word(payload: object, *keys: str, limit: int = MAX_SENDER) -> str:
    """A string only shown to people: cut, cleaned, and empty where there is none."""
    value = member(payload, *keys)
    return printable(value, limit) if isinstance(value, str) else ""


def printable(value: str, limit: int) -> str:
    """``value`` without what a database or a terminal would choke on, cut to ``limit``."""
    clean = value.encode(errors="replace").decode()
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in clean[:limit])
