"""What the client prints: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 10_000  # columns: what goes into a pipe is never cut

console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDE)
complaints = Console(stderr=True, highlight=False, markup=False)

STYLES = {
    "passed": "green",
    "succeeded": "green",
    "running": "cyan",
    "failed": "red",
    "cancelled": "yellow",
    "superseded": "dim",
    "queued": "dim",
    "waiting": "yellow",
}


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_line(value: object) -> None:
    """One of many, as it comes: a JSON object in a line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
    """Where the terminal is too narrow, the last column gives way."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        width = max([len(heading), *(len(row[index]) for row in rows)])
        last = index == len(headings) - 1
        table.add_column(
            heading, no_wrap=True, overflow="ellipsis", min_width=None if last else width
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    console.print(table)


def short(digest: str) -> str:
    """Enough of a digest to tell it from others."""
    return digest.removeprefix("sha256:")[:12]


def state(word: str) -> Text:
    return Text(word, style=STYLES.get(word, ""))


def age(moment: str | None, now: datetime | None = None) -> str:
    """How long ago an ISO 8601 moment was, in one unit: 45 s, 3 min, 5 h, 12 d."""
    if not moment:
        return "-"
    past = (now or datetime.now(UTC)) - datetime.fromisoformat(moment.replace("Z", "+00:00"))
    seconds = max(0, int(past.total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def next_step(text: str) -> None:
    """A word on what to type next; only for people."""
    if console.is_terminal:
        console.print(Text(text, style="dim"))
