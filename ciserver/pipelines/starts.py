"""How a pipeline is started besides by a push: inputs that a person gives, times, groups."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from ciserver.pipelines.expression import NAMES
from ciserver.pipelines.values import OrText, Part

INPUT = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
MOST_TEXT = 1000  # characters of an input
MOST_GROUP = 200
MOST_CRON = 100  # letters: what its row holds
_PLACE = re.compile(r"\$\{([^}]*)\}")
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0", "")


class BadInput(ValueError):
    """A value that an input does not take; ``name`` is the input's."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def _word(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Word = Annotated[
    str,
    BeforeValidator(_word),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]


class Input(Part):
    """One value that whoever starts a pipeline may give. Jobs have it as GANTRY_INPUT_NAME."""

    type: Literal["string", "number", "boolean", "choice"] = "string"
    description: Annotated[str, Field(max_length=300)] = ""
    default: Word | None = None
    required: bool = False
    options: Annotated[list[Word], Field(max_length=100)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.type == "choice") != bool(self.options):
            raise ValueError("expected 'options' for the type choice, and only there")
        if self.default is not None:
            self.read(self.default)
        return self

    def read(self, text: str) -> str:
        """The value that ``text`` means, as jobs get it. Raises ValueError."""
        match self.type:
            case "choice" if text not in self.options:
                raise ValueError(f"expected one of {', '.join(self.options)}")
            case "boolean" if text.lower() not in _YES + _NO:
                raise ValueError("expected true or false")
            case "boolean":
                return str(text.lower() in _YES).lower()
            case "number" if not _is_number(text):
                raise ValueError("expected a number")
        if len(text) > MOST_TEXT or "\0" in text:
            raise ValueError(f"expected {MOST_TEXT} characters at the most")
        return text


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_inputs(known: Mapping[str, Input], given: Mapping[str, str]) -> dict[str, str]:
    """Every input that has a value: what was given, else its default. Raises BadInput."""
    for name in given:
        if name not in known:
            there = ", ".join(known) or "none"
            raise BadInput(name, f"there is no such input; gantry.yml there has {there}")
    values: dict[str, str] = {}
    for name, wanted in known.items():
        # An empty text is a text; of the other types it says that nothing was chosen.
        chosen = name in given and (given[name] != "" or wanted.type == "string")
        text = given[name] if chosen else wanted.default
        if wanted.required and not text:
            raise BadInput(name, "a value is needed")
        try:
            values |= {} if text is None else {name: wanted.read(text)}
        except ValueError as error:
            raise BadInput(name, str(error)) from None
    return values


def defaults(known: Mapping[str, Input]) -> dict[str, str]:
    """What inputs are for a pipeline that nobody gave any."""
    return {name: it.read(it.default) for name, it in known.items() if it.default is not None}


def variables(inputs: Mapping[str, str]) -> dict[str, str]:
    """Inputs as jobs have them."""
    return {f"GANTRY_INPUT_{name.upper()}": value for name, value in inputs.items()}


def _cron(value: Any) -> str:
    words = " ".join(str(value)[: 2 * MOST_CRON].split())
    if len(words) > MOST_CRON:
        raise ValueError(f"expected {MOST_CRON} letters at the most: make it several entries")
    if words.count(" ") == 5:
        raise ValueError("expected five fields, of which the first is the minute: seconds are none")
    try:
        next_after(words, datetime.now(UTC))
    except ValueError as error:
        raise ValueError(str(error)) from None
    return words


def next_after(cron: str, moment: datetime) -> datetime:
    """The first time of ``cron`` after ``moment``, in UTC. Raises ValueError."""
    try:
        return next(CronSim(cron, moment.astimezone(UTC)))
    except CronSimError:
        what = "minute, hour, day, month and weekday, such as '0 3 * * 1-5'"
        raise ValueError(f"expected {what}, not {cron[:40]!r}") from None
    except StopIteration:
        raise ValueError(f"expected a time that comes, not {cron[:40]!r}") from None


class Schedule(Part):
    """Times at which the default branch is built by itself, as cron(8) writes them, in UTC."""

    cron: Annotated[str, BeforeValidator(_cron)]
    inputs: dict[str, Word] = Field(default_factory=dict)


def _group(text: str) -> str:
    for name in _PLACE.findall(text):
        if name not in NAMES and not name.startswith("inputs."):
            raise ValueError(f"there is no name {name[:40]!r}; known are {', '.join(NAMES)}")
    if "${" in _PLACE.sub("", text):
        raise ValueError("expected a '}' behind each '${'")
    if not text.strip():
        raise ValueError("expected a group's name, such as ${branch}")
    return text


class Concurrency(Part):
    """Of the pipelines of one group only the newest is wanted, or one runs at a time."""

    group: Annotated[str, Field(max_length=MOST_GROUP), AfterValidator(_group)] = "${ref}"
    cancel: bool = False

    @property
    def names(self) -> list[str]:
        """What the group's name asks for."""
        return _PLACE.findall(self.group)

    def group_of(self, names: Mapping[str, str]) -> str:
        """The group's name with the values of ``names`` in place of ``${NAME}``."""
        named = _PLACE.sub(lambda found: names.get(found[1], ""), self.group)
        return named[:MOST_GROUP]


def _grouped(value: Any) -> Any:
    return {"group": value} if isinstance(value, str) else value


Grouped = Annotated[
    Concurrency,
    BeforeValidator(_grouped),
    OrText,
]
