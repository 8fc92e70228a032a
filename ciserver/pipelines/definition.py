"""``gantry.yml``: what a repository says of its pipeline. All of it is optional.

The keys are Compose's where it has a word for the thing. See ``docs/gantry.yml``
for the commented example.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, get_args

import yaml
from pydantic import BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ciserver.pipelines.expression import parse as parse_expression
from ciserver.pipelines.starts import INPUT, BadInput, Grouped, Input, Schedule, read_inputs
from ciserver.pipelines.values import Duration, Matrix, Names, Part, Secrets, Size, Words
from ciserver.pipelines.when import When

FILE = "gantry.yml"
MOST_BYTES = 256 * 1024
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where it was built
NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}\Z")


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


class Build(Part):
    """How the image is made."""

    context: str = "."
    dockerfile: str = "Dockerfile"
    target: str | None = None
    args: Words = Field(default_factory=dict)
    secrets: Secrets = ()


class Artifacts(Part):
    """Files of a test that are kept after it, whether it passed or not."""

    paths: Annotated[list[str], Field(min_length=1, max_length=50)]
    expire_in: Duration = 30 * 86400.0


def _several(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class KeyFiles(Part):
    """A cache's key made of what files of the commit hold."""

    files: Annotated[Names, Field(min_length=1, max_length=20)]
    prefix: Annotated[str, Field(max_length=100)] = ""


class Cache(Part):
    """Directories that a test finds again as the last one with the same key left them."""

    key: Annotated[str, Field(min_length=1, max_length=200)] | KeyFiles
    paths: Annotated[Names, Field(min_length=1, max_length=10)]


class Test(Part):
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
    cache: Annotated[list[Cache], BeforeValidator(_several), Field(max_length=5)] = Field(
        default_factory=list
    )


class Definition(Part):
    build: Build = Field(default_factory=Build)
    tests: dict[str, Test] | None = None
    inputs: Annotated[dict[str, Input], Field(max_length=20)] = Field(default_factory=dict)
    schedule: Annotated[list[Schedule], Field(max_length=20)] = Field(default_factory=list)
    concurrency: Grouped | None = None


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
        faults += _bad_needs(definition.tests or {}) + _bad_inputs(definition)
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
        # Without aliases: a few of them, nested, unfold to more than a machine holds.
        for event in yaml.parse(text, _Loader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else None
                raise DefinitionError([Fault("an alias cannot be used here.", line)])
        loader = _Loader(text)
        tree = loader.get_single_node()
        data = loader.construct_document(tree) if tree else None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "this is not YAML"
        # What is missing at the end is missed behind the last line.
        line = min(mark.line, text.rstrip("\n").count("\n")) + 1 if mark else None
        raise DefinitionError([Fault(f"{problem}.", line)]) from None
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


def _bad_inputs(definition: Definition) -> list[Fault]:
    """Names that are none, and values or questions for inputs that are not there."""
    message = "an input's name is lower-case letters, digits and '_'."
    bad = [name for name in definition.inputs if not INPUT.match(name)]
    faults = [Fault(message, path=f"inputs.{name}") for name in bad]
    for place, entry in enumerate(definition.schedule):
        try:
            read_inputs(definition.inputs, entry.inputs)
        except BadInput as error:
            path = f"schedule.{place}.inputs.{error.name}"
            faults.append(Fault(f"{error}.", path=path))
    for name, test in (definition.tests or {}).items():
        asked = parse_expression(test.when.if_).names if test.when.if_ else ()
        for one in asked:
            if one.startswith("inputs.") and one.removeprefix("inputs.") not in definition.inputs:
                known = ", ".join(definition.inputs) or "none"
                faults.append(
                    Fault(
                        f"there is no input {one.removeprefix('inputs.')!r}; known are {known}.",
                        path=f"tests.{name}.when.if",
                    )
                )
    return faults


def _known_keys(path: Sequence[str]) -> list[str]:
    """The keys of the part at ``path``, in which names of tests and positions are passed over."""
    part: type[Part] = Definition
    for name in path:
        field = _fields(part).get(name)
        part = (_part_in(field.annotation) if field else None) or part
    return list(_fields(part))


def _fields(part: type[Part]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in part.model_fields.items()}


def _part_in(annotation: Any) -> type[Part] | None:
    """The part that a field holds: itself, or in a list, a mapping or a choice."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    return next(filter(None, map(_part_in, get_args(annotation))), None)
