"""From the bytes of a verified body to the JSON object in it."""

from __future__ import annotations

import json
from urllib.parse import parse_qs

from ciserver.webhooks.forges import Forge
from ciserver.webhooks.forges.events import Malformed


def payload_of(content_type: str, forge: Forge, body: bytes) -> object:
    """The JSON object, also where it travels in a form. Raises Malformed."""
    return parse(text_of(content_type, forge, body))


def text_of(content_type: str, forge: Forge, body: bytes) -> str:
    """The JSON itself, apart from ``parse`` so that a big body can be let go of between the two.

    Raises Malformed.
    """
    if forge.FORM_FIELD and content_type.startswith("application/x-www-form-urlencoded"):
        body = _form_field(forge.FORM_FIELD, body)
    try:
        return body.decode(json.detect_encoding(body), "surrogatepass")
    except ValueError as error:
        raise Malformed("The body is not JSON.") from error


def parse(text: str) -> object:
    """Raises Malformed."""
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed("The body is not JSON.") from error
    if not isinstance(payload, dict):
        raise Malformed("The body must be a JSON object.")
    return payload


def _form_field(name: str, body: bytes) -> bytes:
    try:
        fields = parse_qs(body, max_num_fields=10)
    except ValueError as error:
        raise Malformed("The body is not a form.") from error
    return fields.get(name.encode(), [b""])[0]
