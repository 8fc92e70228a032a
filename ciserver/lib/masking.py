"""Takes secrets out of what jobs print, before any of it is stored or sent.

A value is looked for as it is and as programs usually write it: base64 (both alphabets, at all
three alignments, and once more of that), base32 (at all five), hexadecimal, and with any of its
characters escaped for URLs, JSON, YAML, HTML, SQL or a shell; whole and line by line, also where an
encoding is broken into lines, or shown by a dump (``dumps``). Colour codes between its characters
do not hide it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate, chain

from ciserver.lib import dumps
from ciserver.lib.crypto import Secret

LEAST = 4  # characters: anything shorter is in every other line
MASK = b"***"
_WRAPPED = 16  # of a value that a program broke into lines, pieces this long are known
_EDGE = 8  # and so much of an encoding at the end of a line with something else before it
_BROKEN_AT = 1024  # characters that a line has at most which a program broke behind something else
# All that a page leaves out (pipelines/ansi.py, in UTF-8): a secret must not come together there.
# Each alternative matches wherever it begins, so that no text makes the search quadratic.
_CONTROLS = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]?"
    rb"|\xc2\x9b[0-?]*[ -/]*[@-~]|\xc2[\x80-\x9f]|[\x00-\x08\x0b-\x1f\x7f]",
    re.MULTILINE,
)
# Bytes with which none of them begins: text of no others is known much faster than by searching.
_HARMLESS = bytes({9, 10, *range(0x20, 256)} - {0x7F, 0xC2})
_SMALL = bytes(range(256)).lower()
_PLAIN = re.compile(rb"[0-9A-Za-z]+")  # what only base64 and hex write in another way
_WIDEST = 10  # bytes that any way to write a byte of another character takes at the most
_NAMED = {
    "&": [b"&(?:amp;)+"],
    "<": [b"&(?:amp;)?lt;"],
    ">": [b"&(?:amp;)?gt;"],
    '"': [b"&(?:amp;)?quot;"],
    # In bash; in dash and Python; in SQL.
    "'": [b"&(?:amp;)?apos;", rb"'\\''", b"'\"'\"'", b"''"],
    " ": [rb"\+"],  # in a form
    "\n": [rb"\\{1,4}n"],
    "\t": [rb"\\{1,4}t"],
    "\r": [rb"\\{1,4}r"],
}
_BYTES = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")  # what is left out by who knows no sequences


class Masker:
    """Masks the secrets of one job. Without any, ``mask`` gives back what it got."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        secrets = list(secrets)
        self.secrets = secrets
        values = [secret.reveal() for secret in secrets]
        parts = list(dict.fromkeys(part for value in values for part in _parts(value)))
        self._needles = {needle for part in parts for needle in _needles(part.encode(), part)}
        self._folded = {needle for part in parts for needle in _folded(part.encode())}
        self._escaped = [_Escaped(part) for part in parts if not _PLAIN.fullmatch(part.encode())]
        self._exact = {needle for part in parts for needle in _words(part)}
        others = (self._needles - self._exact) | self._folded
        self._exact |= {needle for needle in others if len(_squeezed(needle)) < LEAST}
        self._probes = {_squeezed(needle) for needle in others - self._exact}
        self._longest = max(
            [*map(len, self._needles | self._folded), *(one.longest for one in self._escaped)],
            default=0,
        )
        self._any = bool(parts)
        # One search of all that a whole line may be a piece of; no such line has a blank.
        self._encoded = b" ".join(it for it in self._needles if len(it) > _WRAPPED)
        self._encoded_folded = b" ".join(it for it in self._folded if len(it) > _WRAPPED)
        self._broken = [it for value in values for it in _breakable(value) if len(it) > _WRAPPED]
        # What a line begins or ends with that begins or ends inside of one, found at once.
        self._edges = {
            it[place : place + _EDGE] for it in self._broken for place in _edge_places(len(it))
        }
        self._dumped = dumps.Dumped(part.encode() for part in parts)

    @property
    def longest(self) -> int:
        """Bytes: text may be cut this far before its end without cutting a secret."""
        return self._longest

    def mask(self, text: bytes) -> bytes:
        """``text`` (a line, or more) with each secret replaced by ``***``."""
        if not self._any or not text:
            return text
        if dumps.suspects(text):
            text = b"\n".join(map(self._mask_dump, text.split(b"\n")))
        for one in self._escaped:
            if one.word in text:
                text = one.pattern.sub(MASK, text)
        if find := self._find_in(text):
            text = find.sub(MASK, text)
        if _has_controls(text):  # inside one there may be a secret, too: not in place of that
            for controls in (_CONTROLS, _BYTES):
                bare = controls.sub(b"", text)
                for one in self._escaped:
                    if one.word in bare:
                        text = _mask_between(controls, text, one.pattern)
                if find := self._find_in(bare):
                    text = _mask_between(controls, text, find)
        return self._mask_wrapped(text)

    def mask_lines(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        """``lines``, each masked; much faster than one by one where there is nothing to find."""
        if not self._any:
            return lines
        whole = b"\n".join(lines)
        if dumps.suspects(whole):
            lines = [self._mask_dump(line) for line in lines]
            whole = b"\n".join(lines)
        if (
            _has_controls(whole)
            or self._may_hold(whole)
            or any(one.word in whole and one.pattern.search(whole) for one in self._escaped)
        ):
            return [self.mask(line) for line in lines]
        return [self._mask_wrapped(line) for line in lines]

    def mask_text(self, text: str) -> str:
        return self.mask(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")

    def _may_hold(self, text: bytes) -> bool:
        """Whether a needle is in it, or something much like one. Never no if one is.

        ``find`` of all is faster than ``in`` until the first."""
        return (
            max(map(text.find, self._exact)) >= 0
            or max(map(_squeezed(text).find, self._probes), default=-1) >= 0
        )

    def _find_in(self, text: bytes) -> re.Pattern[bytes] | None:
        """A pattern of the needles that ``text`` holds: one of all would take a gigabyte where a
        secret is as long as may be, and a while to go along them at each letter."""
        if not self._may_hold(text):
            return None
        small = text.lower()
        exact = {needle for needle in self._needles if needle in text}
        folded = {needle for needle in self._folded if needle in small}
        return _pattern(exact, folded) if exact or folded else None

    def _mask_dump(self, line: bytes) -> bytes:
        """A line of a dump that shows some of a secret: its address is kept."""
        if not dumps.suspects(line):
            return line
        start = self._dumped.find(line)
        return line if start is None else line[:start] + MASK

    def _mask_wrapped(self, text: bytes) -> bytes:
        """Pieces of a secret that a program, such as ``base64``, broke into lines: a line that is
        nothing else, or begins or ends with one."""
        bare = text.strip()
        if len(bare) < _EDGE:
            return text
        if len(bare) >= _WRAPPED and b" " not in bare and self._is_piece(bare):
            return MASK
        if bare[-_EDGE:] in self._edges:
            text = self._mask_end(text, bare)
        if bare[:_EDGE] in self._edges:
            text = self._mask_beginning(text, bare)
        return text

    def _is_piece(self, bare: bytes) -> bool:
        return bare in self._encoded or bare.lower() in self._encoded_folded

    def _mask_end(self, text: bytes, bare: bytes) -> bytes:
        for needle in self._broken:
            place = needle.find(bare[-_EDGE:])
            while place >= 0:
                begun = needle[: place + _EDGE]
                if bare.endswith(begun):
                    return text[: text.rindex(begun)] + MASK
                place = needle.find(bare[-_EDGE:], place + 1)
        return text

    def _mask_beginning(self, text: bytes, bare: bytes) -> bytes:
        for needle in self._broken:
            place = needle.find(bare[:_EDGE])
            while place >= 0:
                rest = needle[place:]
                if bare.startswith(rest):
                    return MASK + text[text.index(rest) + len(rest) :]
                place = needle.find(bare[:_EDGE], place + 1)
        return text


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


def _parts(value: str) -> Iterator[str]:
    for part in dict.fromkeys([value, value.strip(), *map(str.strip, value.splitlines())]):
        if len(part) >= LEAST:
            yield part


def _needles(raw: bytes, part: str) -> Iterator[bytes]:
    """Of the ways to write ``part`` those that change letters and digits, too."""
    yield from _words(part)
    for once in _base64(raw):
        yield once
        yield from _base64(once)  # a login inside of a secret, as Kubernetes shows it
    for between in (", ", ",", " "):  # as Python, JSON and Go print bytes
        yield between.join(map(str, raw)).encode()


def _words(part: str) -> Iterator[bytes]:
    yield part.encode()
    # As a shell's trace writes the right side of [[ a == "$A" ]].
    yield "".join(f"\\{letter}" for letter in part).encode()


def _folded(raw: bytes) -> Iterator[bytes]:
    """And those that are known by their letters in any case: here in small ones."""
    yield raw.hex().encode()
    for form in ("\\x%02x", "%%%02x"):
        yield "".join(form % byte for byte in raw).encode()
    for between in (":", " ", "-"):
        yield raw.hex(between).encode()
    yield from (it.lower() for it in _base32(raw))


def _pattern(needles: set[bytes], folded: set[bytes]) -> re.Pattern[bytes]:
    """Of all of them, the longest first."""
    longest_first = sorted(needles | folded, key=lambda needle: (-len(needle), needle))
    ways = (b"(?i:%s)" % re.escape(it) if it in folded else re.escape(it) for it in longest_first)
    return re.compile(b"|".join(ways))


def _squeezed(text: bytes) -> bytes:
    """Without what tells ways to write the same apart, so that one search finds several."""
    return text.translate(_SMALL, b" :-,%\\+/_xX")


def _edge_places(size: int) -> Iterable[int]:
    """Where lines may be broken within an encoding of that size: near its beginning and end."""
    last = size - _EDGE + 1
    if last <= 2 * _BROKEN_AT:
        return range(last)
    return chain(range(_BROKEN_AT), range(last - _BROKEN_AT, last))


def _has_controls(text: bytes) -> bool:
    return bool(text.translate(None, _HARMLESS)) and _CONTROLS.search(text) is not None


class _Escaped:
    """A part of a secret of which each character but letters and digits may be escaped.

    ``word`` is in every text in which ``pattern`` may be found.
    """

    def __init__(self, part: str) -> None:
        raw = part.encode()
        words = _PLAIN.findall(raw)
        plain = sum(map(len, words))
        self._part = part
        self.word = max(words, key=len, default=b"")
        self.longest = plain + (len(raw) - plain) * _WIDEST

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        """Made when it is first needed: of a long key that takes a tenth of a second."""
        return re.compile(b"".join(map(_ways, _letters(self._part))))


def _letters(part: str) -> list[str]:
    """Its characters; backslashes, or quotes, that follow one another are one: how many of them
    each stands for is no question then."""
    return re.findall(r"\\+|'+|.", part, re.DOTALL)


@lru_cache(maxsize=1024)
def _ways(letter: str) -> bytes:
    """A pattern of all ways to write ``letter``; the first that fits is taken for good, so that no
    text makes the search exponential."""
    raw = letter.encode()
    if _PLAIN.fullmatch(raw):
        return raw
    if letter[0] == "\\":
        count = len(letter)
        way = rb"%(?:25){0,2}?5c|&#92;|\\u005c|\\x5c"
        return rb"(?>(?i:%s){%d}|\\{%d,%d})" % (way, count, count, count * 8)
    if len(letter) > 1:
        count = len(letter)
        way = rb"%(?:25){0,2}?27|&#(?:39|x27);|&(?:amp;)?apos;|\\{1,4}(?:u0027|x27|047)"
        return rb"(?>(?i:%s){%d}|[\"'\\]{%d,%d})" % (way, count, count, count * 5)
    ways = [
        *_NAMED.get(letter, ()),
        b"(?i:%s)" % b"".join(b"%%(?:25){0,2}?%02x" % byte for byte in raw),
        b"(?i:%s)" % b"".join(rb"\\{1,4}x%02x" % byte for byte in raw),
        b"(?i:%s)" % b"".join(rb"\\{1,4}u%02x%02x" % unit for unit in _units(letter)),
        b"".join(rb"\\{1,4}%03o" % byte for byte in raw),
        rb"(?i:\\{1,4}(?:x%02x|U%08x))" % (ord(letter), ord(letter)),
        b"(?i:&#(?:%d|x%x);)" % (ord(letter), ord(letter)),
        rb"\\{0,7}" + re.escape(raw),
    ]
    return b"(?>%s)" % b"|".join(ways)


def _units(letter: str) -> list[tuple[int, int]]:
    """As JSON escapes it: the bytes of its code units in UTF-16."""
    data = letter.encode("utf-16-be")
    return list(zip(data[::2], data[1::2], strict=True))


def _breakable(value: str) -> Iterator[bytes]:
    """Of all that is masked what a program breaks wherever a line is full."""
    for part in {value, value.strip()}:
        if len(part) >= LEAST:
            raw = part.encode()
            for once in _base64(raw):
                yield once
                yield from _base64(once)
            for either in (raw.hex().encode(), *_base32(raw)):
                yield either.upper()
                yield either.lower()


def _base64(raw: bytes) -> Iterator[bytes]:
    """What base64 makes of ``raw`` whatever stands before and behind it (RFC 4648, 4 and 5)."""
    for before in range(3):
        first = (0, 2, 3)[before]  # characters that the bytes before it share
        whole = (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            if len(core := encode(bytes(before) + raw)[first:whole]) >= LEAST:
                yield core


def _base32(raw: bytes) -> Iterator[bytes]:
    """The same of base32 (RFC 4648, 6), of which five bytes are eight characters."""
    for before in range(5):
        first = -(-before * 8 // 5)
        whole = (before + len(raw)) * 8 // 5
        if len(core := base64.b32encode(bytes(before) + raw)[first:whole]) >= LEAST:
            yield core
