"""From the bytes of a verified body to the JSON object in it."""

from __future__ import annotations

import json

from ciserver.webhooks.forges import Forge
from ciserver.webhooks.forges.events import Malformed
from ciserver.webhooks.forges.forms import field, is_form

LIGHT = 1024 * 1024  # bytes: whatever such a body holds, it does not take much
MOST_TEXT = 25 * 1024 * 1024  # bytes of memory for its text
MOST_VALUES = 150_000  # each takes about a hundred bytes, and all of them a quarter of a second
ESCAPES = 8  # take as long to read as one value
# Bytes of UTF-8 below which Python takes one byte, or two, for each character of a text.
_NARROW, _MIDDLE = bytes(range(0xC4)), bytes(range(0xF0))
TOO_MUCH = (
    "This request holds more than is read at once; a look at the repository finds what it tells."
)


def payload_of(content_type: str, forge: Forge, body: bytes) -> object:
    """The JSON object, also where it travels in a form. Raises Malformed."""
    return unfold(text_of(json_of(content_type, forge, body)))


def json_of(content_type: str, forge: Forge, body: bytes) -> bytes:
    """The JSON itself, as it was sent."""
    if forge.FORM_FIELD and is_form(content_type):
        return field(forge.FORM_FIELD, body)
    return body


def is_heavy(body: bytes) -> bool:
    """Whether to unfold this JSON would take so much memory or time that others feel it.

    A few megabytes of empty lists are enough for that. No forge sends such; a push of so many
    commits has more than its forge tells anyway.
    """
    if len(body) < LIGHT:
        return False
    return b"\0" in body or _has_many_values(body) or _width(body) * len(body) > MOST_TEXT


def _width(body: bytes) -> int:
    """Bytes of memory that each character takes (PEP 393); an escape tells of wide ones, too."""
    beyond = b"" if body.isascii() else body.translate(None, _NARROW)
    escapes = body.count(b"\\u")
    if beyond.translate(None, _MIDDLE) or (escapes and (b"\\ud" in body or b"\\uD" in body)):
        return 4
    return 2 if beyond or escapes > body.count(b"\\u00") else 1


def _has_many_values(body: bytes) -> bool:
    found = 0
    for start in range(0, len(body), LIGHT):
        part = body[start : start + LIGHT]
        found += sum(map(part.count, (b",", b"[", b"{"))) + part.count(b"\\") // ESCAPES
        if found > MOST_VALUES:
            return True
    return False


def text_of(body: bytes) -> str:
    """``body`` as text, apart from ``unfold`` so that a big one can be let go of between the two.

    Raises Malformed.
    """
    try:
        return body.decode(json.detect_encoding(body), "surrogatepass")
    except ValueError as error:
        raise Malformed("The body is not JSON.") from error


def unfold(text: str) -> object:
    """The JSON object in it. Raises Malformed."""
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed("The body is not JSON.") from error
    if not isinstance(payload, dict):
        raise Malformed("The body must be a JSON object.")
    return payload
