"""pydantic's errors in the words of who writes the file: what was expected, what stands there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic_core import ErrorDetails

from ciserver.pipelines.faults import Fault, nearest, shortened
from ciserver.pipelines.values import Part

_WHOLE = "a whole number"
_WANTED = {
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "list_type": "a list",
    "string_type": "a text",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
_BOUNDS: dict[str, tuple[str, str]] = {
    "greater_than_equal": ("ge", "{} or more"),
    "less_than_equal": ("le", "{} at the most"),
    "too_long": ("max_length", "at most {} of them"),
    "too_short": ("min_length", "at least {} of them"),
    "string_too_long": ("max_length", "{} letters at the most"),
    "string_too_short": ("min_length", "a text"),
}


def explained(kind: type[Part], data: Any, errors: Sequence[ErrorDetails]) -> list[Fault]:
    """``errors`` that ``kind`` found in ``data``, by their paths there."""
    faults = []
    # A key that is missing may be one that was mistyped: that says more.
    for error in sorted(errors, key=lambda error: error["type"] == "missing"):
        path = _path(data, error)
        if path is not None:
            faults.append(_explained(kind, path, error))
    return faults


def _path(data: Any, error: ErrorDetails) -> list[str] | None:
    """Where the error is. pydantic also names the kind of value that it tried where there may be
    two (a cache's key); None for the one that cannot have been meant."""
    path = []
    for part in error["loc"]:
        written = isinstance(data, Mapping) and part in data
        if part in {"constrained-str", "KeyFiles"} and not written:
            if isinstance(data, dict) is not (part == "KeyFiles"):
                return None
        elif isinstance(part, int) and not isinstance(data, list):
            pass  # one entry stands for a list of it
        elif part != "[key]":
            path.append(str(part))
            data = _inside(data, part)
    return path


def _inside(data: Any, part: str | int) -> Any:
    if isinstance(data, Mapping):
        return data.get(part)
    if isinstance(data, list) and isinstance(part, int) and part < len(data):
        return data[part]
    return None


def _explained(kind: type[Part], path: list[str], error: ErrorDetails) -> Fault:
    found, what = error["input"], error["type"]
    message = error["msg"].removeprefix("Value error, ")
    context: Mapping[str, Any] = error.get("ctx") or {}
    if what == "extra_forbidden":
        known = known_keys(kind, path[:-1])
        near = nearest(path[-1], known)
        message = f"there is no key {shortened(path[-1])!r}"
        message += f"; did you mean {near!r}?" if near else f"; known are {', '.join(known)}."
    elif what == "missing":
        message = f"the key {path.pop()!r} is needed here"
    elif what == "invalid_key":
        message = "a key must be a text: put it in quotes"
    elif what == "literal_error":
        known = list(_choices(kind, path))
        near = nearest(str(found), known)
        message = f"expected one of {', '.join(known)}, not {_shown(found)}"
        message += f"; did you mean {near!r}?" if near else ""
    elif what == "string_pattern_mismatch":
        message = f"expected PORT/PATH, such as 8080/healthz, not {_shown(found)}"
    elif what in _BOUNDS:
        key, words = _BOUNDS[what]
        more = f", not {_shown(found)}" if isinstance(found, int | float) or not found else ""
        message = f"expected {words.format(context[key])}{more}"
    elif what in _WANTED:
        message = f"expected {_WANTED[what]}, not {_shown(found)}"
        if what == "string_type" and isinstance(found, int | float):
            message += ": put it in quotes"
    return Fault(message if message.endswith((".", "?")) else f"{message}.", path=".".join(path))


def _shown(value: Any) -> str:
    """What stands there, in a few words."""
    if isinstance(value, str):
        return repr(shortened(value)) if value else "nothing"
    if isinstance(value, bool | int | float):
        return shortened(str(value)).lower()
    kinds = ((list, "a list"), (dict, "keys with values"), (type(None), "nothing"))
    return next((words for kind, words in kinds if isinstance(value, kind)), "this")


def _choices(kind: type[Part], path: Sequence[str]) -> Iterator[str]:
    for found in _kinds(kind, path):
        for one in get_args(found):
            if isinstance(one, str):
                yield one


def known_keys(kind: Any, path: Sequence[str]) -> list[str]:
    """The keys that there are at ``path`` below ``kind``, a Part or the type of one's field."""
    for found in _kinds(kind, path):
        if isinstance(found, type) and issubclass(found, Part):
            return list(_fields(found))
    return []


def _fields(kind: type[Part]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}


def _kinds(kind: Any, path: Sequence[str]) -> Iterator[Any]:
    """The types that ``path`` may lead to below ``kind``; a number in it may be left out."""
    if isinstance(kind, type) and issubclass(kind, Part):
        if not path:
            yield kind
        elif (inner := _fields(kind).get(path[0])) is not None:
            yield from _kinds(inner, path[1:])
        return
    inside = get_args(kind)
    if get_origin(kind) in {dict, list}:
        index = path[:1] and (get_origin(kind) is dict or path[0].isdecimal())
        yield from _kinds(inside[-1], path[1:] if index else path)
        return
    if not path and inside and all(isinstance(one, str) for one in inside):
        yield kind
        return
    for part in inside:
        yield from _kinds(part, path)
