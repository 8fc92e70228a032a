"""What a commit asks for: ``gantry.yml`` or, without it, the Dockerfile alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path, PurePosixPath

from builders.context.git import GitContext
from builders.context.tree import read_file
from builders.dockerfile import parse_dockerfile
from builders.dockerfile.excerpt import point_at
from builders.dockerfile.instructions import From
from builders.errors import ContextError, DockerfileError
from ciserver.pipelines.definition import (
    FILE,
    MOST_BYTES,
    Build,
    Definition,
    DefinitionError,
    Test,
    parse,
)
from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.runner.changes import changed_paths
from ciserver.pipelines.starts import defaults, variables
from ciserver.repositories import git
from ciserver.repositories.errors import RepositoryError, UnknownFile
from runtime.spec import MIB, Limits

CONVENTION = "test"
MAX_FILE = 1024 * 1024


class PlanError(Exception):
    """The commit cannot be planned; ``place`` is the file that is to blame."""

    def __init__(self, message: str, *, place: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Plan:
    """``tests`` maps a job's name to the test it runs; its stage None is the image itself.

    Of a test with a matrix each combination is a job: ``unit (3.11, sqlite)``. ``needs`` are
    names of jobs. ``paths`` are the files that the pipeline changes, None if all count as changed.
    """

    build: Build
    tests: dict[str, Test]
    needs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    paths: frozenset[str] | None = None

    @property
    def targets(self) -> tuple[str | None, ...]:
        """The stages to build, the image that is released first."""
        wanted = [self.build.target, *(test.stage for test in self.tests.values())]
        return tuple(dict.fromkeys(wanted))


def make_plan(pipeline: Pipeline, git_dir: Path, most: Limits) -> Plan:
    """The plan of ``pipeline``'s commit, whose tests may have ``most`` at the most.

    Raises PlanError, or builders' DockerfileError for a Dockerfile that cannot be read.
    """
    definition = _definition(git_dir, pipeline.commit)
    stages = _stages(git_dir, pipeline, definition.build)
    if definition.tests is None:
        tests = {CONVENTION: Test(stage=CONVENTION)} if CONVENTION in stages else {}
        return Plan(definition.build, tests)
    inputs = {**defaults(definition.inputs), **pipeline.inputs}
    tests, needs = expand(definition.tests, variables(inputs))
    for job, test in tests.items():
        name = job.partition(" ")[0]
        _check_limits(name, test, most)
        if test.stage is not None and test.stage.lower() not in stages:
            raise PlanError(
                f"{definition.build.dockerfile} has no stage {test.stage!r}.",
                place=f"{FILE}: tests.{name}.stage",
                hint=f"It has {', '.join(sorted(stages)) or 'no named stage'}.",
            )
    asks = any(test.when.paths for test in tests.values())
    paths = changed_paths(pipeline, git_dir) if asks else None
    return Plan(definition.build, tests, needs, inputs, paths)


def expand(
    tests: Mapping[str, Test], inputs: Mapping[str, str] | None = None
) -> tuple[dict[str, Test], dict[str, tuple[str, ...]]]:
    """Jobs and what each needs. The values of a matrix and ``inputs`` are in the jobs'
    environment, and the former replace ``${NAME}`` in their stage."""
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
        stage = test.stage
        for variable, value in chosen.items():
            stage = stage.replace(f"${{{variable}}}", value) if stage else stage
        environment = {**test.environment, **chosen, **inputs}
        words = f"{name} ({', '.join(values)})" if values else name
        yield words, test.model_copy(update={"stage": stage, "environment": environment})


def _check_limits(name: str, test: Test, most: Limits) -> None:
    allowed = {
        "memory": (most.memory, f"{(most.memory or 0) // MIB}m"),
        "cpus": (most.cpus, f"{most.cpus:g}"),
        "pids": (most.pids, str(most.pids)),
        "timeout": (most.timeout, f"{most.timeout:g}s"),
        "disk": (most.disk, f"{(most.disk or 0) // MIB}m"),
        "inodes": (most.inodes, str(most.inodes)),
    }
    for key, (limit, words) in allowed.items():
        asked = getattr(test, key)
        if limit is not None and asked is not None and asked > limit:
            raise PlanError(
                f"This installation allows at most {words}.",
                place=f"{FILE}: tests.{name}.{key}",
                hint="Ask for less, or have GANTRY_BUILD_* raised by whoever runs it.",
            )


def _definition(git_dir: Path, commit: str) -> Definition:
    data = _read(git_dir, commit, FILE, MOST_BYTES)
    if data is None:
        return Definition()
    try:
        return parse(data.decode())
    except UnicodeDecodeError:
        raise PlanError("This file is not UTF-8.", place=FILE) from None
    except DefinitionError as error:
        raise PlanError(error.message, place=error.place) from None


def _stages(git_dir: Path, pipeline: Pipeline, build: Build) -> set[str]:
    path = str(PurePosixPath(build.context, build.dockerfile))
    data = _read(git_dir, pipeline.commit, path)
    if data is None:
        # It may be a symbolic link, which the build follows inside its context.
        with suppress(ContextError), closing(open_context(pipeline, git_dir, build)) as context:
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
        step.stage.lower() for step in parsed.instructions if isinstance(step, From) and step.stage
    }


def _read(git_dir: Path, commit: str, path: str, most: int = MAX_FILE) -> bytes | None:
    """A file of the commit, None when it has none of that name."""
    try:
        return git.read_file(git_dir, commit, path, max_bytes=most)
    except UnknownFile:
        return None
    except RepositoryError as error:
        raise PlanError(str(error), place=path) from error


def open_context(pipeline: Pipeline, git_dir: Path, build: Build) -> GitContext:
    subdir = "" if build.context in {"", "."} else build.context
    return GitContext(git_dir, pipeline.commit, subdir)
