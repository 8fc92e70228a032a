"""Terminal text to safe HTML: an SGR state machine with a fixed table of classes.

ECMA-48 (5th edition) 5.4 and 8.3.117. Only colours and weights are kept; every other control
sequence (cursor moves, titles, hyperlinks) is dropped. Text is escaped, classes come from the
tables below, so nothing a program prints can become markup, a style or a link.

Each line starts plain. A terminal would carry colours over a line's end; we do not, so that a
line looks the same whether it came live, by permalink or in the middle of a log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from django.utils.html import escape

# CSI; OSC and the other strings, which end in BEL or ST; any other escape; lone controls.
_CONTROL = re.compile(
    r"\x1b\[([0-?]*)[ -/]*([@-~])"
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\Z)"
    r"|\x1b[ -/]*[0-~]?"
    r"|\x9b([0-?]*)[ -/]*([@-~])"
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f]"
)
# Characters that reorder or hide text (CVE-2021-42574) are shown by their number.
_INVISIBLE = re.compile("[\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_FLAGS = {1: "bold", 2: "faint", 3: "italic", 4: "underline", 7: "inverse", 9: "strike"}
_OFF = {
    22: ("bold", "faint"),
    23: ("italic",),
    24: ("underline",),
    27: ("inverse",),
    29: ("strike",),
}
_GROUNDS = {
    3: ("fg", 0),
    4: ("bg", 0),
    9: ("fg", 8),
    10: ("bg", 8),
}
_MAX_PARAMETERS = 64


@dataclass(frozen=True, slots=True)
class Style:
    """What SGR has set. ``fg`` and ``bg`` are 0..15, or None for the page's own."""

    fg: int | None = None
    bg: int | None = None
    flags: frozenset[str] = frozenset()

    def apply(self, parameters: str) -> Style:
        """The style after ``CSI parameters m``. Unknown parameters change nothing."""
        style = self
        codes = iter(_codes(parameters))
        for code in codes:
            style = style._after(code, codes)
        return style

    def _after(self, code: int, rest: Iterator[int]) -> Style:
        if code == 0:
            return Style()
        if code in _FLAGS:
            return replace(self, flags=self.flags | {_FLAGS[code]})
        if code in _OFF:
            return replace(self, flags=self.flags.difference(_OFF[code]))
        ground = _GROUNDS.get(code // 10)
        if ground is None:
            return self
        name, bright = ground
        if name == "fg":
            return replace(self, fg=_colour(code % 10, bright, self.fg, rest))
        return replace(self, bg=_colour(code % 10, bright, self.bg, rest))

    @property
    def classes(self) -> str:
        fg = [] if self.fg is None else [f"f{self.fg}"]
        bg = [] if self.bg is None else [f"b{self.bg}"]
        return " ".join([*fg, *bg, *sorted(self.flags)])


def to_html(text: str) -> str:
    """One line of a log as HTML. Linear in its length."""
    if text.isascii() and text.isprintable():
        return escape(text)
    parts = []
    style = Style()
    start = 0
    text = _last_overwrite(text)
    for match in _CONTROL.finditer(text):
        parts.append(_span(text[start : match.start()], style))
        start = match.end()
        if match[2] == "m" or match[4] == "m":
            style = style.apply(match[1] or match[3] or "")
    parts.append(_span(text[start:], style))
    return "".join(parts)


def plain(text: str) -> str:
    """One line of a log as text alone."""
    return _CONTROL.sub("", _last_overwrite(text))


def _last_overwrite(text: str) -> str:
    """What is left to see of a line that a progress bar rewrote with carriage returns."""
    if "\r" not in text:
        return text
    pieces = [piece for piece in text.split("\r") if piece]
    return pieces[-1] if pieces else ""


def _span(text: str, style: Style) -> str:
    if not text:
        return ""
    html = _INVISIBLE.sub(_shown, escape(text))
    classes = style.classes
    return f'<span class="{classes}">{html}</span>' if classes else html


def _shown(match: re.Match[str]) -> str:
    return f'<span class="hidden-char">U+{ord(match[0]):04X}</span>'


def _codes(parameters: str) -> list[int]:
    if not re.fullmatch(r"[0-9;:]*", parameters):
        return []  # private parameters such as "?25"
    fields = re.split("[;:]", parameters)[:_MAX_PARAMETERS]
    return [int(field[:4]) if field else 0 for field in fields]


def _colour(digit: int, bright: int, now: int | None, rest: Iterator[int]) -> int | None:
    """The colour that the last digit of 3x, 4x, 9x or 10x sets."""
    if digit < 8:
        return digit + bright
    if bright:
        return now  # 98, 99, 108 and 109 mean nothing
    return _extended(rest) if digit == 8 else None


def _extended(rest: Iterator[int]) -> int | None:
    """The nearest of the 16 colours to ``5;N`` or ``2;R;G;B`` (ITU-T T.416 13.1.8)."""
    kind = next(rest, None)
    if kind == 5:
        return _from_256(next(rest, 0))
    if kind == 2:
        return _nearest(*(min(next(rest, 0), 255) for _ in range(3)))
    return None


def _from_256(index: int) -> int | None:
    if index < 16:
        return index
    if index < 232:
        index -= 16
        red, green, blue = index // 36, index // 6 % 6, index % 6
        return _nearest(*(0 if level == 0 else 55 + 40 * level for level in (red, green, blue)))
    if index < 256:
        return _nearest(*[8 + 10 * (index - 232)] * 3)
    return None


_BASE = [(bit & 1, bit >> 1 & 1, bit >> 2 & 1) for bit in range(8)]
_RGB = [tuple(170 * on for on in base) for base in _BASE] + [
    tuple(85 + 170 * on for on in base) for base in _BASE
]


def _nearest(*rgb: int) -> int:
    def distance(index: int) -> int:
        return sum((mine - theirs) ** 2 for mine, theirs in zip(rgb, _RGB[index], strict=True))

    return min(range(16), key=distance)
