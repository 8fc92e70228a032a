"""Reading JSON that strangers wrote: every shape is checked, every fault is a sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class Malformed(ValueError):
    """A JSON document is not what its specification says."""


def load_json(data: bytes, what: str) -> Any:
    """What is in ``data``. Raises Malformed, also for nesting that is too deep."""
    try:
        return json.loads(data)
    except (RecursionError, ValueError) as error:  # a number of thousands of digits is one, too
        raise Malformed(f"{what} is not JSON") from error


def load_object(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in ``data``. Raises Malformed."""
    return as_object(load_json(data, what), what)


def as_object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not a JSON object")
    return value


def optional_object(value: object, what: str) -> dict[str, Any]:
    """An absent object is an empty one."""
    return {} if value is None else as_object(value, what)


def as_list(value: object, what: str) -> list[Any]:
    """An absent list is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"{what} is not a list")
    return value


def text(values: Mapping[str, Any], key: str) -> str:
    """An absent text is an empty one."""
    value = values.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{key} is not a text")
    return value


def texts(values: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    value = values.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Malformed(f"{key} is not a list of texts")
    return tuple(value)


def text_map(values: Mapping[str, Any], key: str) -> dict[str, str]:
    value = optional_object(values.get(key), key)
    if not all(isinstance(item, str) for item in value.values()):
        raise Malformed(f"a value in {key} is not a text")
    return value
