"""``gantry.yml``: what a repository says of its pipeline. All of it is optional.

The keys are Compose's where it has a word for the thing. See ``docs/gantry.yml``
for the commented example.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError

from ciserver.pipelines.expression import parse as parse_expression
from ciserver.pipelines.faults import (
    FILE,
    DefinitionError,
    Fault,
    circle,
    in_circle,
    unknown,
)
from ciserver.pipelines.mistakes import explained
from ciserver.pipelines.service_definition import (
    MOST_SERVICES,
    Dependencies,
    Service,
    Services,
    bad_services,
    chosen,
)
from ciserver.pipelines.starts import INPUT, BadInput, Grouped, Input, Schedule, read_inputs
from ciserver.pipelines.values import (
    Command,
    Duration,
    Matrix,
    Names,
    OrOne,
    Part,
    Secrets,
    Size,
    Words,
)
from ciserver.pipelines.when import When
from ciserver.pipelines.yaml_nodes import line_of, load

__all__ = ["FILE", "Build", "Definition", "DefinitionError", "Fault", "Test", "parse", "schema"]

MOST_BYTES = 256 * 1024
MOST_FAULTS = 50
MOST_TESTS = 100
MOST_JOBS = 400  # each combination of a matrix is one
NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}\Z")
# It becomes part of a repository's name in the registry (distribution-spec, "Pulling manifests").
IMAGE_NAME = re.compile(r"^[a-z0-9]+(?:[_-][a-z0-9]+)*\Z")
OWN_JOBS = ("build", "push")  # names of jobs that Gantry itself adds


class Build(Part):
    """How the image is made."""

    context: str = "."
    dockerfile: str = "Dockerfile"
    target: str | None = None
    args: Words = Field(default_factory=dict)
    secrets: Secrets = ()


class NamedBuild(Build):
    """One of several images. One that is not released is for tests alone."""

    release: bool = True


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
    """One test: a command in a container of the built image, of one of its stages, or of another.

    ``image`` as in ``Service``. ``command`` as a line is for the image's shell; as a list it is
    run as it is, without the image's ENTRYPOINT.
    """

    keeps_entrypoint: ClassVar[bool] = False  # in front of the command, as Compose does
    image: str | None = None
    stage: str | None = None
    entrypoint: Command | None = None
    command: Command | None = None
    user: str | None = None
    working_dir: str | None = None
    environment: Words = Field(default_factory=dict)
    secrets: Secrets = ()
    memory: Size = 512 * 1024**2
    cpus: Annotated[float, Field(ge=0.01, allow_inf_nan=False)] = 1.0
    pids: Annotated[int, Field(ge=2)] = 256
    timeout: Duration = 600.0
    silence: Duration | None = None
    disk: Size | None = None
    inodes: Annotated[int, Field(ge=100)] | None = None
    network: Literal["none", "egress"] = "none"
    services: Services = Field(default_factory=dict)
    depends_on: Dependencies = Field(default_factory=dict)
    junit: Names = Field(default_factory=list)
    coverage: Names = Field(default_factory=list)
    needs: Names = Field(default_factory=list)
    when: When = Field(default_factory=When)
    matrix: Matrix = Field(default_factory=dict)
    retries: Annotated[int, Field(ge=0, le=5)] = 0
    artifacts: Artifacts | None = None
    cache: Annotated[list[Cache], BeforeValidator(_several), Field(max_length=5), OrOne] = Field(
        default_factory=list
    )


def _names(pattern: re.Pattern[str]) -> dict[str, Any]:
    """For the JSON Schema, whose patterns know no ``\\Z`` (ECMA-262)."""
    return {"propertyNames": {"pattern": pattern.pattern.replace(r"\Z", "$")}}


class Definition(Part):
    build: Build = Field(default_factory=Build)
    images: Annotated[dict[str, NamedBuild], Field(max_length=16)] | None = Field(
        default=None, json_schema_extra=_names(IMAGE_NAME)
    )
    deploy: str | None = None
    services: Annotated[dict[str, Service], Field(max_length=MOST_TESTS)] = Field(
        default_factory=dict, json_schema_extra=_names(NAME)
    )
    tests: Annotated[dict[str, Test], Field(max_length=MOST_TESTS)] | None = Field(
        default=None, json_schema_extra=_names(NAME)
    )
    inputs: Annotated[dict[str, Input], Field(max_length=20)] = Field(default_factory=dict)
    schedule: Annotated[list[Schedule], Field(max_length=20)] = Field(default_factory=list)
    concurrency: Grouped | None = None

    def builds(self) -> dict[str, Build]:
        """The images by name, the deployed one first; of a project with one it has none ("")."""
        if not self.images:
            return {"": self.build}
        first = self.deployed
        return {first: self.images[first], **self.images}

    @property
    def deployed(self) -> str:
        """Which image environments run: the one that ``deploy`` names, else the first released."""
        if not self.images:
            return ""
        released = (name for name, image in self.images.items() if image.release)
        return self.deploy or next(released, next(iter(self.images)))


def parse(text: str) -> Definition:
    """The definition in ``text``. Raises DefinitionError with every fault and its line."""
    tree, data = load(text)
    if data is None:
        return Definition()
    if not isinstance(data, dict):
        raise DefinitionError([Fault("expected keys such as 'build' and 'tests'.")])
    faults = _bad_names(data)
    try:
        definition = Definition.model_validate(data)
    except ValidationError as error:
        faults += explained(Definition, data, error.errors()[:MOST_FAULTS])
    else:
        faults += _bad_images(definition, data)
        faults += _bad_services(definition)
        faults += _bad_needs(definition.tests or {}) + _bad_inputs(definition)
    if faults:
        # The nearest name and the line of each take time: nobody reads so many.
        faults = faults[:MOST_FAULTS]
        raise DefinitionError([fault.at(line_of(tree, fault.path)) for fault in faults])
    return definition


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``gantry.yml``, for editors."""
    draft = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": draft, **Definition.model_json_schema(), "title": FILE}


def _bad_names(data: Mapping[str, object]) -> list[Fault]:
    faults = []
    for key, word in (("images", "an image"), ("services", "a service"), ("tests", "a test")):
        part = data.get(key)
        for name in map(str, part if isinstance(part, dict) else ()):
            if not NAME.match(name) or (key == "images" and not IMAGE_NAME.match(name)):
                message = f"{word}'s name is lower-case letters, digits, '-' and '_'."
                faults.append(Fault(message, path=f"{key}.{name}"))
            elif key == "tests" and name in OWN_JOBS:
                message = f"{name!r} is the name of a job that Gantry adds: call it something else."
                faults.append(Fault(message, path=f"{key}.{name}"))
    return faults


def _bad_images(definition: Definition, data: Mapping[str, object]) -> list[Fault]:
    """Images that contradict one another, and stages of images that are not built here."""
    images = definition.images
    faults = []
    if images is not None:
        if "build" in data:
            message = "with 'images' there is no 'build': give each image its own keys there."
            faults.append(Fault(message, path="build"))
        if not any(image.release for image in images.values()):
            faults.append(Fault("one image at least must be released.", path="images"))
    if definition.deploy is not None:
        if definition.deploy not in (images or {}):
            faults.append(unknown("image", definition.deploy, images or {}, "deploy"))
        elif not (images or {})[definition.deploy].release:
            message = f"the image {definition.deploy!r} is not released."
            faults.append(Fault(message, path="deploy"))
    for path, part in _containers(definition):
        if part.stage and part.image and part.image not in (images or {}):
            message = "only an image that is built here has stages: leave out 'image' or 'stage'."
            faults.append(Fault(message, path=f"{path}.stage"))
    return faults


def _bad_services(definition: Definition) -> list[Fault]:
    shared = definition.services
    faults = bad_services(shared, "services")
    if definition.tests is None and len(shared) > MOST_SERVICES:
        message = f"a test has at most {MOST_SERVICES} services, and without 'tests' all of these."
        faults.append(Fault(message, path="services"))
    for name, test in () if faults else (definition.tests or {}).items():
        faults += bad_services(test.services, f"tests.{name}.services", shared)
        known = chosen(test.services, shared)
        faults += [
            unknown("service", other, known, f"tests.{name}.depends_on")
            for other in test.depends_on
            if other not in known
        ]
    return faults


def _containers(definition: Definition) -> Iterator[tuple[str, Test | Service]]:
    for name, service in definition.services.items():
        yield f"services.{name}", service
    for name, test in (definition.tests or {}).items():
        yield f"tests.{name}", test
        for other, own in test.services.items():
            if own is not None:
                yield f"tests.{name}.services.{other}", own


def _bad_needs(tests: Mapping[str, Test]) -> list[Fault]:
    """Needs that are not there, and the first circle among the others."""
    missing = (
        (name, need) for name, test in tests.items() for need in test.needs if need not in tests
    )
    faults = [
        unknown("test", need, tests, f"tests.{name}.needs")
        for name, need in islice(missing, MOST_FAULTS)
    ]
    jobs = sum(prod(map(len, test.matrix.values())) for test in tests.values())
    if jobs > MOST_JOBS:
        faults.append(Fault(f"that makes {jobs} jobs; {MOST_JOBS} is the most.", path="tests"))
    if not faults and (names := circle({name: test.needs for name, test in tests.items()})):
        faults.append(in_circle(names, f"tests.{names[0]}.needs"))
    return faults


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
    faults += [
        unknown("input", one, definition.inputs, path)
        for path, names in _asked(definition)
        for one in (name.removeprefix("inputs.") for name in names if name.startswith("inputs."))
        if one not in definition.inputs
    ]
    return faults


def _asked(definition: Definition) -> Iterator[tuple[str, Iterable[str]]]:
    """Where names of facts and inputs are asked for, and which."""
    for name, test in (definition.tests or {}).items():
        if test.when.if_:
            yield f"tests.{name}.when.if", parse_expression(test.when.if_).names
    if definition.concurrency:
        yield "concurrency.group", definition.concurrency.names
