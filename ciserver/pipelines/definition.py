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
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from ciserver.pipelines.values import Duration, Matrix, Names, Part, Secrets, Size, Words

FILE = "gantry.yml"
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


class When(Part):
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


class Artifacts(Part):
    """Files of a test that are kept after it, whether it passed or not."""

    paths: Annotated[list[str], Field(min_length=1, max_length=50)]
    expire_in: Duration = 30 * 86400.0


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


class Definition(Part):
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
    parts: dict[str, type[Part]] = {"build": Build, "tests": Test}
    return list((parts[path[0]] if path else Definition).model_fields)
