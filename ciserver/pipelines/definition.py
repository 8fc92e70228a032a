"""``gantry.yml``: what a repository says of its pipeline. All of it is optional.

The keys are Compose's where it has a word for the thing. See ``docs/gantry.yml``
for the commented example.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

FILE = "gantry.yml"
NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}\Z")
LEAST_MEMORY = 16 * 1024**2
_SIZES = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_TIMES = {"": 1, "s": 1, "m": 60, "h": 3600}


class DefinitionError(Exception):
    """``gantry.yml`` cannot be used. ``place`` is file and key path, or file and line."""

    def __init__(self, message: str, *, place: str) -> None:
        super().__init__(f"{place}: {message}")
        self.message = message
        self.place = place


def _size(value: Any) -> int:
    """Bytes from 64m, 1.5gb or a number, as Compose writes them."""
    size = int(_scaled(value, _SIZES, r"b?", "a size such as 256m or 1g"))
    if size < LEAST_MEMORY:
        raise ValueError("expected 16m or more: with less not even a shell starts")
    return size


def _duration(value: Any) -> float:
    """Seconds from 90s, 5m, 1h or a number."""
    seconds = _scaled(value, _TIMES, "", "a time such as 90s or 5m")
    if seconds < 1:
        raise ValueError("expected 1s or more")
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
        pairs = [str(item).partition("=") for item in value]
        return {name: text for name, _, text in pairs}
    if isinstance(value, dict):
        return {str(name): "" if text is None else str(text) for name, text in value.items()}
    return value


Size = Annotated[int, BeforeValidator(_size)]
Duration = Annotated[float, BeforeValidator(_duration)]
Words = Annotated[dict[str, str], BeforeValidator(_words)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Build(_Part):
    """How the image is made."""

    context: str = "."
    dockerfile: str = "Dockerfile"
    target: str | None = None
    args: Words = Field(default_factory=dict)


class Test(_Part):
    """One test: a command in a container of the built image, or of one of its stages."""

    stage: str | None = None
    command: str | list[str] | None = None
    environment: Words = Field(default_factory=dict)
    memory: Size = 512 * 1024**2
    cpus: Annotated[float, Field(ge=0.01)] = 1.0
    pids: Annotated[int, Field(ge=2)] = 256
    timeout: Duration = 600.0
    silence: Duration | None = None
    disk: Size | None = None
    inodes: Annotated[int, Field(ge=100)] | None = None
    junit: str | None = None


class Definition(_Part):
    build: Build = Field(default_factory=Build)
    tests: dict[str, Test] | None = None


class _Loader(yaml.SafeLoader):
    """Without aliases: a few of them, nested, unfold to more than a machine holds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="an alias cannot be used here", problem_mark=mark)
        return super().compose_node(parent, index)


def parse(text: str) -> Definition:
    """The definition in ``text``. Raises DefinitionError with the place of the first fault."""
    try:
        data = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader that takes less
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "this is not YAML"
        raise DefinitionError(f"{problem}.", place=FILE + line) from None
    if data is None:
        return Definition()
    if not isinstance(data, dict):
        raise DefinitionError("expected keys such as 'build' and 'tests'.", place=FILE)
    _check_names(data.get("tests"))
    try:
        return Definition.model_validate(data)
    except ValidationError as error:
        raise _explained(error) from None


def _check_names(tests: object) -> None:
    for name in tests if isinstance(tests, dict) else ():
        if not NAME.match(str(name)):
            message = "a test's name is lower-case letters, digits, '-' and '_'."
            raise DefinitionError(message, place=f"{FILE}: tests.{name}")


def _explained(error: ValidationError) -> DefinitionError:
    fault = error.errors()[0]
    path = [str(part) for part in fault["loc"]]
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        message = f"there is no key {path[-1]!r}"
        message += f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}."
    elif not message.endswith((".", "?")):
        message += "."
    return DefinitionError(message, place=f"{FILE}: {'.'.join(path)}")


def _known_keys(path: Sequence[str]) -> list[str]:
    parts: dict[str, type[_Part]] = {"build": Build, "tests": Test}
    return list((parts[path[0]] if path else Definition).model_fields)
