"""State moves: an explicit table and one atomic statement."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.db import models


class IllegalMove(Exception):
    """A row was not in a state from which the move is allowed; the message names both ends."""


def move(
    row: models.Model,
    to: str,
    *,
    table: Mapping[str, Collection[str]],
    guard: Mapping[str, Any] | None = None,
    **fields: Any,
) -> None:
    """Move ``row.state`` to ``to`` and set ``fields``, if ``table`` allows it from where it is now.

    ``guard`` holds further conditions on the row, such as a fencing token. Raises IllegalMove
    when another process was there first. ``row`` is refreshed either way.
    """
    sources = [state for state, targets in table.items() if to in targets]
    manager = type(row)._default_manager
    rows = manager.filter(pk=row.pk, state__in=sources).filter(**(guard or {}))
    changed = rows.update(state=to, **fields)
    row.refresh_from_db()
    if changed != 1:
        name = f"{row._meta.verbose_name} {row.pk}"
        raise IllegalMove(f"{name} cannot go from {row.state!r} to {to!r}.")  # type: ignore[attr-defined]
