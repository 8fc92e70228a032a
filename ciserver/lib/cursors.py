"""Long lists in pages, newest first: each begins behind a row, so that the last page costs what
the first does, and what is added meanwhile moves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db.models import Model, QuerySet
from django.utils.http import urlencode

SIZE = 50
Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True, slots=True)
class Leaf(Generic[Row]):
    """``newer`` and ``older`` are the queries of the pages beside it, empty at the ends."""

    rows: list[Row]
    newer: str
    older: str


def leaf(rows: QuerySet[Row], query: Mapping[str, str], *, by: str, **chosen: str) -> Leaf[Row]:
    """The page next to the row that ``before`` or ``after`` in ``query`` names by its column
    ``by``; the first one for anything else. ``chosen`` stays in the queries of other pages."""
    before, after = _number(query.get("before")), _number(query.get("after"))
    keys: list[int] = []
    if after is not None:
        keys = _keys(rows.filter(**{f"{by}__gt": after}).order_by(by))
    if newer := len(keys) > SIZE:
        older = True
    else:
        newer = before is not None
        there = rows.filter(**{f"{by}__lt": before}) if newer else rows
        keys = _keys(there.order_by(f"-{by}"))
        older = len(keys) > SIZE
    found = list(rows.filter(pk__in=keys[:SIZE]).order_by(f"-{by}"))
    words = {name: value for name, value in chosen.items() if value}

    def beside(side: str, row: Row) -> str:
        return urlencode(words | {side: getattr(row, by)})

    return Leaf(
        found,
        beside("after", found[0]) if newer and found else "",
        beside("before", found[-1]) if older else "",
    )


def _keys(rows: QuerySet[Row]) -> list[int]:
    """Of one page and a row more. Keys alone: an index holds them, and sorting them is cheap."""
    return list(rows.values_list("pk", flat=True)[: SIZE + 1])


def _number(text: str | None) -> int | None:
    if text and text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    return None
