"""Kinds of values in ``gantry.yml``: sizes, times, words, names, as people write them."""

from __future__ import annotations

import re
from itertools import product
from math import prod
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import core_schema

VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,39}\Z")
MOST_COMBINATIONS = 32
MOST_LETTERS = 40
MOST_NAME = 200
SECRET = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,99}\Z")
LEAST_MEMORY = 16 * 1024**2
MOST_SECONDS = 3650 * 86400.0  # what dates can be counted with, and longer than anybody waits
_SIZES = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_TIMES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
# Compose's, of several units; the largest stands first.
_SEVERAL = re.compile(
    r"(?=.)(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?(?:(\d{1,9})ms)?"
)


def _size(value: Any) -> int:
    """Bytes from 64m, 1.5gb or a number, as Compose writes them."""
    size = int(_scaled(value, _SIZES, r"b?", "a size such as 256m or 1g"))
    if size < LEAST_MEMORY:
        raise ValueError("expected 16m or more: with less not even a shell starts")
    return size


def _duration(value: Any) -> float:
    """Seconds from 90s, 5m, 1h30m or a number: 1 or more."""
    seconds = _moment(value)
    if seconds < 1:
        raise ValueError("expected 1s or more")
    return seconds


def _moment(value: Any) -> float:
    """The same, also less than a second."""
    several = _SEVERAL.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if several:
        units = zip(several.groups("0"), (86400, 3600, 60, 1, 0.001), strict=True)
        seconds = float(sum(int(count) * unit for count, unit in units))
    else:
        seconds = _scaled(value, _TIMES, "", "a time such as 90s or 5m")
    if seconds > MOST_SECONDS:
        raise ValueError("expected ten years (3650d) at the most")
    return seconds


def _scaled(value: Any, units: dict[str, int], tail: str, wanted: str) -> float:
    names = "".join(unit for unit in units if unit)
    simple = isinstance(value, int | float | str) and not isinstance(value, bool)
    words = str(value).strip().lower() if simple else ""
    match = re.fullmatch(rf"(\d{{1,15}}(?:\.\d{{1,9}})?)\s*([{names}]?){tail}", words)
    if not match:
        raise ValueError(
            f"expected {wanted}, not {words[:40]!r}" if simple else f"expected {wanted}"
        )
    return float(match[1]) * units[match[2]]


def _words(value: Any) -> Any:
    """Environment as a mapping, or as Compose's list of NAME=VALUE."""
    if isinstance(value, list):
        pairs = (_text(item).partition("=") for item in value)
        value = {name: text for name, _, text in pairs}
    if not isinstance(value, dict):
        raise ValueError("expected names with values, or a list of NAME=VALUE")  # noqa: TRY004
    for name, text in value.items():
        if not str(name) or "=" in str(name):
            raise ValueError(f"expected the name of a variable, not {str(name)[:40]!r}")
        if isinstance(text, dict | list):
            raise ValueError(f"expected a word or a number for {str(name)[:40]}")  # noqa: TRY004
    return {_text(name): "" if text is None else _text(text) for name, text in value.items()}


def _secret_names(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(
        isinstance(name, str) and SECRET.match(name) for name in names
    ):
        raise ValueError(
            "expected a list of secrets' names, such as [API_TOKEN]: letters, digits and '_'"
        )
    return tuple(dict.fromkeys(names))


def _listed(value: Any) -> Any:
    """One word, or a list of them."""
    return [value] if isinstance(value, str) else value


_TIME_PATTERN = (
    r"^\s*([0-9]{1,15}(\.[0-9]{1,9})?\s*[smhdSMHD]?"
    r"|(?=.)([0-9]{1,9}[dD])?([0-9]{1,9}[hH])?([0-9]{1,9}[mM])?([0-9]{1,9}[sS])?([0-9]{1,9}[mM][sS])?)\s*$"
)
_WORD = {"type": ["string", "number", "boolean", "null"]}
Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": r"^\s*[0-9]{1,15}(\.[0-9]{1,9})?\s*([kmgKMG]?[bB]?)\s*$",
            "description": "a size such as 256m or 1g",
        }
    ),
]
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema(
        {
            "type": ["string", "number"],
            "pattern": _TIME_PATTERN,
            "description": "a time such as 90s or 5m",
        }
    ),
]
Moment = Annotated[
    float,
    BeforeValidator(_moment),
    WithJsonSchema(
        {
            "type": ["string", "number"],
            "pattern": _TIME_PATTERN,
            "description": "a time such as 500ms, 90s or 5m",
        }
    ),
]
Words = Annotated[
    dict[str, str],
    BeforeValidator(_words),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "object", "additionalProperties": _WORD},
                {"type": "array", "items": {"type": "string"}},
            ],
            "description": "a mapping, or a list of NAME=VALUE",
        }
    ),
]
Secrets = Annotated[
    tuple[str, ...],
    BeforeValidator(_secret_names),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "description": "names of the project's secrets",
        }
    ),
]


def _command(value: Any) -> Any:
    words = [value] if isinstance(value, str) else value
    plain = isinstance(words, list) and all(
        isinstance(word, str | int | float) and not isinstance(word, bool) for word in words
    )
    if not plain or not words or not str(words[0]).strip():
        raise ValueError(
            'expected a line for the shell, or a list of words such as ["make", "test"]'
        )
    return value if isinstance(value, str) else list(map(str, words))


Command = Annotated[
    str | list[str],
    BeforeValidator(_command),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1},
            ],
            "description": "a line, or a list of words",
        }
    ),
]


Names = Annotated[
    list[str],
    BeforeValidator(_listed),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "description": "a word, or a list of them",
        }
    ),
]


def _matrix(value: Any) -> Any:
    """Variables and the values of each, as text."""
    if not isinstance(value, dict):
        return value
    for name, values in value.items():
        if not VARIABLE.match(str(name)):
            raise ValueError("expected names of letters, digits and '_': they become variables")
        if not isinstance(values, list) or not values:
            raise ValueError(f"expected a list of values for {str(name)[:40]}")
        if any(one is None or isinstance(one, dict | list) for one in values) or any(
            len(str(one)) > MOST_LETTERS for one in values
        ):
            raise ValueError(f"expected short words or numbers for {str(name)[:40]}")
    if prod(map(len, value.values())) > MOST_COMBINATIONS:
        raise ValueError(f"expected at most {MOST_COMBINATIONS} combinations")
    names = [", ".join(map(_text, one)) for one in product(*value.values())]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"expected combinations that differ: two would be called ({twice})")
    if sum(max(len(str(one)) + 2 for one in values) for values in value.values()) > MOST_NAME:
        raise ValueError("expected fewer or shorter values: together they name the job")
    return {str(name): list(map(_text, values)) for name, values in value.items()}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


Matrix = Annotated[
    dict[str, list[str]],
    BeforeValidator(_matrix),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"type": "array", "items": _WORD, "minItems": 1},
            "description": "variables and the values of each",
        }
    ),
]


class OrOne:
    """In the JSON Schema: the list, or one of what it lists."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        listed = handler(core)
        return {"anyOf": [listed["items"], listed]}


class OrText:
    """In the JSON Schema: the mapping, or a text."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(core)]}


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
