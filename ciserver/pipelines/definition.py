"""``gantry.yml``: what a repository says of its pipeline. All of it is optional.

The keys are Compose's where it has a word for the thing. See ``docs/gantry.yml``
for the commented example.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from math import prod
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails

FILE = "gantry.yml"
VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,39}\Z")
MOST_COMBINATIONS = 32
MOST_LETTERS = 40
MOST_NAME = 200
NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}\Z")
SECRET = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,99}\Z")
LEAST_MEMORY = 16 * 1024**2
_SIZES = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_TIMES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake in ``gantry.yml``. ``line`` counts from 1; ``path`` is empty for bad YAML."""

    message: str
    line: int | None = None
    path: str = ""

    @property
    def place(self) -> str:
        """``gantry.yml:12: tests.unit.memory``"""
        where = f"{FILE}:{self.line}" if self.line else FILE
        return f"{where}: {self.path}" if self.path else where


class DefinitionError(Exception):
    """``gantry.yml`` cannot be used. ``faults`` are all that were found; the first one speaks."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        first = faults[0]
        super().__init__(f"{first.place}: {first.message}")
        self.faults = tuple(faults)
        self.message = first.message
        self.place = first.place


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


def _secret_names(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(
        isinstance(name, str) and SECRET.match(name) for name in names
    ):
        raise ValueError("expected a list of secrets' names, such as [API_TOKEN]")
    return tuple(dict.fromkeys(names))


def _listed(value: Any) -> Any:
    """One word, or a list of them."""
    return [value] if isinstance(value, str) else value


_WORD = {"type": ["string", "number", "boolean", "null"]}
Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"type": ["string", "integer"], "description": "a size such as 256m or 1g"}),
]
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"type": ["string", "number"], "description": "a time such as 90s or 5m"}),
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
        if any(isinstance(one, dict | list) or len(str(one)) > MOST_LETTERS for one in values):
            raise ValueError(f"expected short words or numbers for {str(name)[:40]}")
    if prod(map(len, value.values())) > MOST_COMBINATIONS:
        raise ValueError(f"expected at most {MOST_COMBINATIONS} combinations")
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


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Build(_Part):
    """How the image is made."""

    context: str = "."
    dockerfile: str = "Dockerfile"
    target: str | None = None
    args: Words = Field(default_factory=dict)
    secrets: Secrets = ()


class When(_Part):
    """The refs for which a test is run: those that match one of the patterns."""

    branch: Names | None = None
    tag: Names | None = None

    def refusal(self, ref: str) -> str:
        """Why a pipeline of ``ref`` leaves the test out; empty when it runs."""
        for kind, prefix, patterns in (
            ("branch", "refs/heads/", self.branch),
            ("tag", "refs/tags/", self.tag),
        ):
            if ref.startswith(prefix):
                name = ref.removeprefix(prefix)
                if patterns is None and self == When():
                    return ""
                if any(fnmatchcase(name, pattern) for pattern in patterns or ()):
                    return ""
                wanted = f"only {' or '.join(patterns)}" if patterns else f"not for a {kind}"
                return f"It is {wanted}, and this is {kind} {name}."
        return ""


class Artifacts(_Part):
    """Files of a test that are kept after it, whether it passed or not."""

    paths: Annotated[list[str], Field(min_length=1, max_length=50)]
    expire_in: Duration = 30 * 86400.0


class Test(_Part):
    """One test: a command in a container of the built image, or of one of its stages."""

    stage: str | None = None
    command: str | list[str] | None = None
    environment: Words = Field(default_factory=dict)
    secrets: Secrets = ()
    memory: Size = 512 * 1024**2
    cpus: Annotated[float, Field(ge=0.01)] = 1.0
    pids: Annotated[int, Field(ge=2)] = 256
    timeout: Duration = 600.0
    silence: Duration | None = None
    disk: Size | None = None
    inodes: Annotated[int, Field(ge=100)] | None = None
    junit: str | None = None
    needs: Names = Field(default_factory=list)
    when: When = Field(default_factory=When)
    matrix: Matrix = Field(default_factory=dict)
    retries: Annotated[int, Field(ge=0, le=5)] = 0
    artifacts: Artifacts | None = None


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
    """The definition in ``text``. Raises DefinitionError with every fault and its line."""
    tree, data = _load(text)
    if data is None:
        return Definition()
    if not isinstance(data, dict):
        raise DefinitionError([Fault("expected keys such as 'build' and 'tests'.")])
    faults = _bad_names(data.get("tests"))
    try:
        definition = Definition.model_validate(data)
    except ValidationError as error:
        faults += [_explained(fault) for fault in error.errors()]
    else:
        faults += _bad_needs(definition.tests or {})
    if faults:
        raise DefinitionError([replace(fault, line=_line(tree, fault.path)) for fault in faults])
    return definition


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``gantry.yml``, for editors."""
    draft = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": draft, **Definition.model_json_schema(), "title": FILE}


def _load(text: str) -> tuple[yaml.Node | None, Any]:
    """The YAML of ``text`` as nodes, which know their lines, and as plain data."""
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
        data = loader.construct_document(tree) if tree else None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "this is not YAML"
        raise DefinitionError([Fault(f"{problem}.", mark.line + 1 if mark else None)]) from None
    return tree, data


def _line(tree: yaml.Node | None, path: str) -> int | None:
    """The line of the deepest part of ``path`` that is written in the file."""
    line = None
    for part in path.split("."):
        found = None
        for position, (key, value) in enumerate(_children(tree)):
            if part == (key.value if key else str(position)):
                found, line = value, (key or value).start_mark.line + 1
        if found is None:
            break
        tree = found
    return line


def _children(tree: yaml.Node | None) -> list[tuple[yaml.ScalarNode | None, yaml.Node]]:
    if isinstance(tree, yaml.MappingNode):
        return [(key, value) for key, value in tree.value if isinstance(key, yaml.ScalarNode)]
    return [(None, item) for item in tree.value] if isinstance(tree, yaml.SequenceNode) else []


def _bad_names(tests: object) -> list[Fault]:
    message = "a test's name is lower-case letters, digits, '-' and '_'."
    names = map(str, tests if isinstance(tests, dict) else ())
    return [Fault(message, path=f"tests.{name}") for name in names if not NAME.match(name)]


def _bad_needs(tests: Mapping[str, Test]) -> list[Fault]:
    """Needs that are not there, and the first circle among the others."""
    faults = []
    for name, test in tests.items():
        for need in test.needs:
            if need not in tests:
                near = difflib.get_close_matches(need, tests, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                faults.append(Fault(f"there is no test {need!r}{hint}", path=f"tests.{name}.needs"))
    if not faults:
        try:
            TopologicalSorter({name: test.needs for name, test in tests.items()}).prepare()
        except CycleError as error:
            circle = list(reversed(error.args[1]))
            message = f"these wait for one another: {' -> '.join(circle)}."
            faults.append(Fault(message, path=f"tests.{circle[0]}.needs"))
    return faults


def _explained(fault: ErrorDetails) -> Fault:
    path = [str(part) for part in fault["loc"]]
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        message = f"there is no key {path[-1]!r}"
        message += f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}."
    elif not message.endswith((".", "?")):
        message += "."
    return Fault(message, path=".".join(path))


def _known_keys(path: Sequence[str]) -> list[str]:
    if path and path[-1] == "when":
        return list(When.model_fields)
    parts: dict[str, type[_Part]] = {"build": Build, "tests": Test}
    return list((parts[path[0]] if path else Definition).model_fields)
