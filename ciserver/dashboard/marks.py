"""The container that stands for a digest: same digest, same colour and mark on every page.

Colours are the classes ``c0`` to ``c23`` of the stylesheet, because the content security
policy allows no style attribute. Nothing here is random, and nothing of a digest but its
hexadecimal digits reaches the markup.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

COLOURS = 24
REMEMBERED = 4096  # drawings: the same digests are on every page, again and again


@dataclass(frozen=True, slots=True)
class Mark:
    """``cells`` are the filled fields of a 5 by 5 grid, mirrored left to right."""

    colour: int
    cells: tuple[tuple[int, int], ...]
    label: str


def mark_of(digest: str) -> Mark:
    """The mark of ``sha256:…``; of any other text, the mark of its own hash."""
    digits = digest.rpartition(":")[2].lower()
    if not re.fullmatch(r"[0-9a-f]{32,}", digits):
        digits = hashlib.sha256(digest.encode()).hexdigest()
    bits = int(digits[8:12], 16) & 0x7FFF
    if not 5 <= bits.bit_count() <= 11:
        bits ^= 0x2DB5  # too empty or too full to be told from others
    half = [(bit % 3, bit // 3) for bit in range(15) if bits >> bit & 1]
    cells = {(column, row) for column, row in half} | {(4 - column, row) for column, row in half}
    label = f"{digits[:4]} {digits[4:8]}"
    return Mark(int(digits[12:16], 16) % COLOURS, tuple(sorted(cells)), label)


@lru_cache(REMEMBERED)
def container(digest: str, *, css: str = "") -> SafeString:
    """A shipping container as inline SVG, 132 by 44, with the first digits of the digest.

    Its frame is the symbol ``box`` of ``parts/symbols.html``, which is once on every page.
    """
    mark = mark_of(digest)
    return format_html(
        '<svg class="box c{}{}" viewBox="0 0 132 44" width="132" height="44" role="img"'
        ' aria-label="container {}"><use href="#box"/>'
        '<path class="box-mark" transform="translate(11 11)scale(4.4)" d="{}"/>'
        '<text class="box-text" x="83" y="26.5">{}</text></svg>',
        mark.colour,
        f" {css}" if css else "",
        mark.label,
        _runs(mark),
        mark.label,
    )


@lru_cache(REMEMBERED)
def chip(digest: str) -> SafeString:
    """The mark alone, 20 by 20, for lists. Decoration: the text beside it names the release."""
    mark = mark_of(digest)
    return format_html(
        '<svg class="chip c{}" viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">'
        '<rect class="box-body" x=".5" y=".5" width="19" height="19" rx="4"/>'
        '<path class="box-mark" transform="translate(4 4)scale(2.4)" d="{}"/></svg>',
        mark.colour,
        _runs(mark),
    )


def slot() -> SafeString:
    """The place of a container where none stands."""
    return mark_safe(
        '<svg class="box slot" viewBox="0 0 132 44" width="132" height="44" aria-hidden="true">'
        '<rect x="1" y="1" width="130" height="42" rx="3"/></svg>'
    )


def _runs(mark: Mark) -> SafeString:
    """The filled cells as a path in grid units, one rectangle for each run in a row."""
    path = []
    for row in range(5):
        cells = "".join("#" if (column, row) in mark.cells else " " for column in range(5))
        path += [
            f"M{run.start()} {row}h{len(run[0])}v1h-{len(run[0])}z"
            for run in re.finditer("#+", cells)
        ]
    return mark_safe("".join(path))  # noqa: S308 - numbers only
