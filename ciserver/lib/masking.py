"""Takes secrets out of what jobs print, before any of it is stored or sent.

A value is looked for as it is and as programs usually write it: base64 (both alphabets, at all
three alignments), percent-encoded, hexadecimal, escaped for JSON and HTML; whole and line by
line. Colour codes between its characters do not hide it.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from itertools import accumulate
from urllib.parse import quote, quote_plus

from ciserver.lib.crypto import Secret

LEAST = 4  # characters: anything shorter is in every other line
MASK = b"***"
_WRAPPED = 16  # of an encoding that a program broke into lines, pieces this long are known
# All that a page leaves out (pipelines/ansi.py, in UTF-8): a secret must not come together there.
# Each alternative matches wherever it begins, so that no text makes the search quadratic.
_CONTROLS = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]?"
    rb"|\xc2\x9b[0-?]*[ -/]*[@-~]|\xc2[\x80-\x9f]|[\x00-\x08\x0b-\x1f\x7f]",
    re.MULTILINE,
)
_BYTES = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")  # what is left out by who knows no sequences


class Masker:
    """Masks the secrets of one job. Without any, ``mask`` gives back what it got."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        needles = {needle for secret in secrets for needle in _needles(secret.reveal())}
        longest_first = sorted(needles, key=lambda needle: (-len(needle), needle))
        self._longest = max(map(len, needles), default=0)
        self._needles = longest_first
        self._find = re.compile(b"|".join(map(re.escape, longest_first))) if needles else None
        self._encoded = [needle for needle in longest_first if len(needle) > _WRAPPED]

    @property
    def longest(self) -> int:
        """Bytes: text may be cut this far before its end without cutting a secret."""
        return self._longest

    def mask(self, text: bytes) -> bytes:
        """``text`` (a line, or more) with each secret replaced by ``***``."""
        if self._find is None or not text:
            return text
        if any(needle in text for needle in self._needles):  # much faster than the pattern
            text = self._find.sub(MASK, text)
        if _CONTROLS.search(text):  # inside one there may be a secret, too: not in place of that
            text = _mask_between(_CONTROLS, text, self._find)
            text = _mask_between(_BYTES, text, self._find)
        return self._mask_wrapped(text)

    def mask_text(self, text: str) -> str:
        return self.mask(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")

    def _mask_wrapped(self, text: bytes) -> bytes:
        """A line that is nothing but a piece of an encoded secret, as ``base64`` wraps it."""
        bare = text.strip()
        if len(bare) < _WRAPPED or b" " in bare:
            return text
        return MASK if any(bare in needle for needle in self._encoded) else text


def _mask_between(controls: re.Pattern[bytes], text: bytes, find: re.Pattern[bytes]) -> bytes:
    """Looks at the text without its ``controls``; takes out what lies between, too."""
    kept: list[tuple[int, int]] = []
    start = 0
    for control in controls.finditer(text):
        kept.append((start, control.start()))
        start = control.end()
    kept.append((start, len(text)))
    bare = b"".join(text[first:last] for first, last in kept)
    starts = [0, *accumulate(last - first for first, last in kept)]

    def place(offset: int) -> int:
        low, high = 0, len(kept) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if starts[middle] <= offset:
                low = middle
            else:
                high = middle - 1
        return kept[low][0] + offset - starts[low]

    done, result = 0, []
    for match in find.finditer(bare):
        first, last = place(match.start()), place(match.end() - 1) + 1
        result += [text[done:first], MASK]
        done = last
    return b"".join([*result, text[done:]])


def _needles(value: str) -> Iterator[bytes]:
    for part in dict.fromkeys([value, value.strip(), *map(str.strip, value.splitlines())]):
        if len(part) >= LEAST:
            yield from _forms(part)


def _forms(text: str) -> Iterator[bytes]:
    raw = text.encode()
    yield raw
    yield from _base64(raw)
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for escaped in (quote(text, safe=""), quote(text), quote_plus(text)):
        yield escaped.encode()
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), escaped).encode()
    for ascii_only in (True, False):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode()
    yield repr(text)[1:-1].encode()
    yield html.escape(text).encode()


def _base64(raw: bytes) -> Iterator[bytes]:
    """What base64 makes of ``raw`` whatever stands before and behind it (RFC 4648, 4 and 5)."""
    for before in range(3):
        first = (0, 2, 3)[before]  # characters that the bytes before it share
        whole = (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            if len(core := encode(bytes(before) + raw)[first:whole]) >= LEAST:
                yield core
