"""What a commit asks for: ``gantry.yml`` or, without it, the Dockerfile alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path, PurePosixPath
from typing import TypeVar

from builders.context.tree import read_file
from builders.dockerfile import parse_dockerfile
from builders.dockerfile.excerpt import point_at
from builders.dockerfile.instructions import From
from builders.errors import ContextError, DockerfileError
from ciserver.pipelines.compose import COMPOSE_FILES, SUT, ComposeError, read_compose
from ciserver.pipelines.definition import (
    FILE,
    MOST_BYTES,
    Build,
    Definition,
    DefinitionError,
    NamedBuild,
    Test,
    parse,
)
from ciserver.pipelines.faults import key_at
from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.runner.changes import changed_paths
from ciserver.pipelines.runner.commit_files import MAX_FILE, CommitFiles, PlanError
from ciserver.pipelines.service_definition import COMPLETED, HEALTHY, STARTED, Service, chosen
from ciserver.pipelines.starts import defaults, variables
from runtime.spec import MIB, Limits

CONVENTION = "test"
OTHER_NAMES = ("gantry.yaml", ".gantry.yml", ".gantry.yaml", "Gantry.yml")
MAIN = "main"  # the one image of a project, beside those that only a Compose file for tests builds
NO_TEST = (
    f"No test uses the services of {FILE}: write one under 'tests', or call the stage of the "
    f"Dockerfile that is one {CONVENTION!r}."
)
WRITE_IT_OUT = f"write the test in {FILE}, with stage: {CONVENTION}"
Container = TypeVar("Container", Test, Service)


@dataclass(frozen=True, slots=True)
class PlannedService:
    """A service of one job. ``wanted`` is the condition it must reach before the test begins."""

    service: Service
    place: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is built, and the jobs after it.

    ``builds`` are the images by name, the deployed one first; the only one of a project has no
    name (""). ``tests`` maps a job's name to the test it runs. Of a test with a matrix each
    combination is a job: ``unit (3.11, sqlite)``. ``needs`` are names of jobs, ``services`` and
    ``places`` (where the test is written: ``gantry.yml: tests.unit``, or ``Dockerfile:7`` for a
    stage that is one by convention) are by job. ``paths`` are the files that the pipeline changes,
    None if all count as changed.
    """

    builds: dict[str, Build]
    tests: dict[str, Test]
    needs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    paths: frozenset[str] | None = None
    services: dict[str, dict[str, PlannedService]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def deployed(self) -> str:
        return next(iter(self.builds))

    @property
    def released(self) -> tuple[str, ...]:
        """Images that are pushed, the deployed one first."""
        return tuple(name for name, build in self.builds.items() if is_released(build))

    def build_job(self, image: str) -> str:
        return f"build {image}" if len(self.builds) > 1 else "build"

    def own_image(self, part: Test | Service) -> tuple[str, str | None] | None:
        """(image, stage) of what ``part`` runs in; None when it is not built here."""
        name = part.image or self.deployed
        if name not in self.builds:
            return None
        return name, part.stage or self.builds[name].target

    def targets(self, image: str) -> tuple[str | None, ...]:
        """The stages of ``image`` to build, the one that is released first."""
        used = [self.own_image(part) for part in self._parts()]
        stages = [stage for name, stage in filter(None, used) if name == image]
        return tuple(dict.fromkeys([self.builds[image].target, *stages]))

    def images_of(self, job: str) -> list[str]:
        """The images that are built here and that a test's job uses."""
        parts: list[Test | Service] = [self.tests[job]]
        parts += (one.service for one in self.services.get(job, {}).values())
        used = [self.own_image(part) for part in parts]
        return list(dict.fromkeys(name for name, _ in filter(None, used)))

    def _parts(self) -> Iterator[Test | Service]:
        yield from self.tests.values()
        for services in self.services.values():
            yield from (one.service for one in services.values())


def is_released(build: Build) -> bool:
    return not isinstance(build, NamedBuild) or build.release


def make_plan(
    pipeline: Pipeline, git_dir: Path, most: Limits, files: CommitFiles | None = None
) -> Plan:
    """The plan of ``pipeline``'s commit, whose tests may have ``most`` at the most.

    Raises PlanError, or builders' DockerfileError for a Dockerfile that cannot be read.
    """
    if files is not None:
        return _made(pipeline, git_dir, most, files)
    with closing(CommitFiles(pipeline, git_dir)) as own:
        return _made(pipeline, git_dir, most, own)


def _made(pipeline: Pipeline, git_dir: Path, most: Limits, files: CommitFiles) -> Plan:
    definition = _definition(files)
    inputs = {**defaults(definition.inputs), **pipeline.inputs}
    if definition.tests is None:
        plan = _by_convention(pipeline, files, definition, inputs)
    else:
        asks = any(test.when.paths for test in definition.tests.values())
        plan = replace(
            planned(definition, definition.tests, inputs=variables(inputs)),
            inputs=inputs,
            paths=changed_paths(pipeline, git_dir) if asks else None,
        )
    stages = {name: _stages(files, pipeline, build) for name, build in plan.builds.items()}
    for job, test in plan.tests.items():
        _check(plan, plan.places[job], test, stages, most)
        for one in plan.services[job].values():
            _check(plan, one.place, one.service, stages, most)
    return plan


def _by_convention(
    pipeline: Pipeline, files: CommitFiles, definition: Definition, inputs: dict[str, str]
) -> Plan:
    """Without ``tests``: stages named test, beside which every service of the file runs, and what
    a Compose file for tests asks for."""
    tests: dict[str, Test] = {}
    places: dict[str, str] = {}
    services = dict.fromkeys(definition.services)
    for name, build in definition.builds().items():
        if line := _stages(files, pipeline, build).get(CONVENTION):
            job = f"{CONVENTION}-{name}" if tests else CONVENTION
            tests[job] = Test(image=name or None, stage=CONVENTION, services=services)
            places[job] = f"{build.dockerfile}:{line}"
    notices = (NO_TEST,) if services and not tests else ()
    plan = replace(
        planned(definition, tests, inputs=variables(inputs)),
        inputs=inputs,
        places=places,
        notices=notices,
    )
    for file in COMPOSE_FILES:
        if (data := files.read(file)) is not None:
            return _with_compose(plan, data, file)
    return plan


def _with_compose(plan: Plan, data: bytes, file: str) -> Plan:
    """``plan`` and the job ``sut``, with images that only the Compose file builds."""
    images = {name or MAIN: build for name, build in plan.builds.items()}
    try:
        found = read_compose(data, file=file, main=plan.builds[plan.deployed], images=images)
    except ComposeError as error:
        raise PlanError(error.message, place=error.place, hint=error.hint) from None
    builds = {**plan.builds, **found.builds}
    if len(builds) > 1 and "" in builds:  # now it needs a name
        builds = {MAIN: builds.pop(""), **builds}
    sut = {SUT: found.test}
    where, inputs = f"{file}: services", variables(plan.inputs)
    own = planned(Definition(services=found.services), sut, builds, where, inputs)
    return replace(
        own,
        inputs=plan.inputs,
        tests={**plan.tests, **own.tests},
        needs={**plan.needs, **own.needs},
        services={**plan.services, **own.services},
        places={**plan.places, **own.places},
        notices=(*plan.notices, *found.notices),
    )


def planned(
    definition: Definition,
    tests: Mapping[str, Test],
    builds: dict[str, Build] | None = None,
    where: str = f"{FILE}: tests",
    inputs: Mapping[str, str] | None = None,
) -> Plan:
    """The jobs that ``tests`` ask for. ``where`` is the place of the tests in their file."""
    jobs, needs = expand(tests, inputs)
    places = {job: f"{where}.{job.partition(' ')[0]}" for job in jobs}
    services = {
        job: _services_of(test, definition.services, places[job]) for job, test in jobs.items()
    }
    return Plan(builds or definition.builds(), jobs, needs, services=services, places=places)


def _services_of(
    test: Test, shared: Mapping[str, Service], place: str
) -> dict[str, PlannedService]:
    found = chosen(test.services, shared)
    file = place.partition(":")[0]
    asked = [*test.depends_on.items()]
    for service in found.values():
        asked += service.depends_on.items()
    wanted: dict[str, str] = {}
    for condition in (STARTED, HEALTHY, COMPLETED):  # the strongest is asked last
        wanted |= {name: one.condition for name, one in asked if one.condition == condition}
    return {
        name: PlannedService(
            service=_filled(service, {name: test.environment[name] for name in test.matrix}),
            place=f"{place}.services.{name}"
            if test.services.get(name)
            else f"{file}: services.{name}",
            wanted=wanted.get(name, HEALTHY),
        )
        for name, service in found.items()
    }


def expand(
    tests: Mapping[str, Test], inputs: Mapping[str, str] | None = None
) -> tuple[dict[str, Test], dict[str, tuple[str, ...]]]:
    """Jobs and what each needs. The values of a matrix and ``inputs`` are in the jobs'
    environment, and the former replace ``${NAME}`` in the names of images and stages."""
    jobs = {name: dict(_combinations(name, test, inputs or {})) for name, test in tests.items()}
    needs = {
        job: tuple(needed for need in tests[name].needs for needed in jobs[need])
        for name, own in jobs.items()
        for job in own
    }
    return {job: test for own in jobs.values() for job, test in own.items()}, needs


def _combinations(name: str, test: Test, inputs: Mapping[str, str]) -> Iterator[tuple[str, Test]]:
    for values in product(*test.matrix.values()):
        chosen = dict(zip(test.matrix, values, strict=True))
        environment = {**test.environment, **chosen, **inputs}
        words = f"{name} ({', '.join(values)})" if values else name
        yield words, _filled(test, chosen).model_copy(update={"environment": environment})


def _filled(part: Container, values: Mapping[str, str]) -> Container:
    """With ``${NAME}`` replaced in the names of image and stage."""
    names = {"image": part.image, "stage": part.stage}
    for variable, value in values.items():
        for key, text in names.items():
            names[key] = text.replace(f"${{{variable}}}", value) if text else text
    return part.model_copy(update=names)


def _check(
    plan: Plan,
    place: str,
    part: Test | Service,
    stages: Mapping[str, Mapping[str, int]],
    most: Limits,
) -> None:
    """The stage is there, and the limits are within ``most``. Raises PlanError."""
    _check_limits(place, part, most)
    own = plan.own_image(part)
    if part.stage is None or own is None or part.stage.lower() in stages[own[0]]:
        return
    raise PlanError(
        f"{plan.builds[own[0]].dockerfile} has no stage {part.stage!r}.",
        place=key_at(place, "stage"),
        hint=f"It has {', '.join(sorted(stages[own[0]])) or 'no named stage'}.",
    )


def _check_limits(place: str, part: Test | Service, most: Limits) -> None:
    allowed = {
        "memory": (most.memory, f"{(most.memory or 0) // MIB}m"),
        "cpus": (most.cpus, f"{most.cpus:g}"),
        "pids": (most.pids, str(most.pids)),
        "timeout": (most.timeout, f"{most.timeout:g}s"),
        "silence": (most.silence, f"{most.silence or 0:g}s"),
        "disk": (most.disk, f"{(most.disk or 0) // MIB}m"),
        "inodes": (most.inodes, str(most.inodes)),
    }
    how = "" if ": " in place else f" ({WRITE_IT_OUT})"
    for key, (limit, words) in allowed.items():
        asked = getattr(part, key, None)
        if limit is not None and asked is not None and asked > limit:
            raise PlanError(
                f"This installation allows at most {words}.",
                place=key_at(place, key),
                hint=f"Ask for less{how}, or have GANTRY_BUILD_* raised by whoever runs it.",
            )


def _definition(files: CommitFiles) -> Definition:
    data = files.read(FILE, MOST_BYTES)
    if data is None:
        _refuse_other_names(files)
        return Definition()
    try:
        return parse(data.decode())
    except UnicodeDecodeError:
        hint = "Save it in that encoding."
        raise PlanError("This file is not UTF-8.", place=FILE, hint=hint) from None
    except DefinitionError as error:
        hint = "`gantry lint` tells every mistake of the file, before it is pushed."
        raise PlanError(error.message, place=error.place, hint=hint) from None


def _refuse_other_names(files: CommitFiles) -> None:
    """A file that its author takes for the definition: without it an image would be released of
    which nothing was tested. Raises PlanError."""
    if files.has(FILE):
        hint = "Commit the file itself: a link is not followed, and a folder is none."
        raise PlanError("This is no file.", place=FILE, hint=hint)
    for name in OTHER_NAMES:
        if files.has(name):
            message = f"This file is not read: only {FILE} is, in the top folder."
            raise PlanError(message, place=name, hint=f"git mv {name} {FILE}")


def _stages(files: CommitFiles, pipeline: Pipeline, build: Build) -> dict[str, int]:
    """The named stages of the image's Dockerfile, each with its line."""
    path = str(PurePosixPath(build.context, build.dockerfile))
    data = files.read(path)
    if data is None:
        # It may be a symbolic link, which the build follows inside its context.
        with suppress(ContextError), closing(files.context(build)) as context:
            data = read_file(context, build.dockerfile, MAX_FILE)
    if data is None:
        raise PlanError(
            f"Commit {pipeline.short_commit} of {pipeline.branch} has no {path}.",
            place=path,
            hint=f"Add a Dockerfile there, or name another with build.dockerfile in {FILE}.",
        )
    try:
        parsed = parse_dockerfile(data, file=build.dockerfile)
    except DockerfileError as error:
        point_at(error, data, build.dockerfile)
        raise
    return {
        step.stage.lower(): step.at.line
        for step in parsed.instructions
        if isinstance(step, From) and step.stage
    }
