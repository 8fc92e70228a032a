"""What is asked of a forge: values, which ``ciserver.notifications.sending`` carries out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CONTEXT = "gantry"  # what a status is called beside those of others


@dataclass(frozen=True, slots=True)
class Told:
    """One status. ``state`` is a value of ``notifications.models.State``."""

    sha: str
    state: str
    description: str  # up to 140 characters
    url: str  # the pipeline's page
    pipeline: int


@dataclass(frozen=True, slots=True)
class Request:
    """A POST of ``json`` to ``url``; of ``content``, byte by byte, when there is some."""

    url: str
    json: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    whom: str = "forge"  # what errors call who is asked
