"""The jobs between the first build and the push: their rows, their order, and running them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from builders.shared import SharedCache
from ciserver.lib.states import move
from ciserver.pipelines.leases import Heartbeat
from ciserver.pipelines.models import JOB_MOVES, Job, JobKind, Pipeline, State
from ciserver.pipelines.runner.build import Images, build_images
from ciserver.pipelines.runner.commit_files import CommitFiles
from ciserver.pipelines.runner.graph import Node, run_graph
from ciserver.pipelines.runner.jobs import JobFailed, JobRun, working_on
from ciserver.pipelines.runner.plan import Plan
from ciserver.pipelines.runner.push import Uploads
from ciserver.pipelines.runner.services import service_limits
from ciserver.pipelines.runner.test import limits_of, run_test
from ciserver.pipelines.runner.workshop import Workshop
from runtime.spec import Limits


@dataclass(slots=True)
class Work:
    """The jobs between planning and the push: images and tests."""

    pipeline: Pipeline
    plan: Plan
    jobs: list[Job]
    workshop: Workshop
    heart: Heartbeat
    uploads: Uploads
    shared: SharedCache | None
    images: Images = field(default_factory=dict)
    failed: dict[str, JobFailed] = field(default_factory=dict)

    def build(self, run: JobRun, name: str, files: CommitFiles | None = None) -> None:
        """Build one image, whose layers travel as they come."""
        upload = self.uploads.start(name, self.plan)
        self.images.update(build_images(run, self.plan, name, self.shared, upload, files))
        if upload is not None:
            upload.complete(self.images[name, self.plan.builds[name].target])

    def run(self) -> None:
        """Run all that can run, also after one failed: its author wants to know of all."""
        rows = self._rows
        # A test without a row passed in an earlier run.
        names = [*self._builds, *self.plan.tests]
        states = {n: State(rows[n].state) if n in rows else State.PASSED for n in names}
        states[self.plan.build_job(self.plan.deployed)] = State.PASSED
        run_graph(
            self._nodes(),
            states,
            work=self._one,
            skip=self._skip,
            budget=self.workshop.budget(),
        )
        failures = [(job, self.failed[job.name]) for job in self.jobs if job.name in self.failed]
        if failures:
            job, first = failures[0]
            many = "tests" if all(one.kind == JobKind.TEST for one, _ in failures) else "jobs"
            more = f" ({len(failures)} {many} failed.)" if len(failures) > 1 else ""
            who = f"Test {job.name}" if job.kind == JobKind.TEST else job.name.capitalize()
            raise JobFailed(f"{who}: {first.reason}{more}", place=first.place)

    @property
    def _rows(self) -> dict[str, Job]:
        return {job.name: job for job in self.jobs}

    @property
    def _builds(self) -> dict[str, str]:
        """Images by the job that builds them, but the first, which is built."""
        plan = self.plan
        return {plan.build_job(name): name for name in plan.builds if name != plan.deployed}

    def _nodes(self) -> list[Node]:
        most = self.workshop.limits()
        nodes = [Node(job, limits=most) for job in self._builds]
        for name in self.plan.tests:
            nodes.append(
                Node(name, needs_of(self.plan, name), limits_of_job(self.plan, name, most))
            )
        return nodes

    def _one(self, name: str) -> State:
        try:
            with working_on(self._rows[name], self.workshop, self.heart.cancel) as run:
                if name in self._builds:
                    self.build(run, self._builds[name])
                else:
                    run_test(run, self.plan, self.images)
        except JobFailed as failure:
            if failure.state == State.CANCELLED:
                raise
            self.failed[name] = failure
            return State.FAILED
        return State.PASSED

    def _skip(self, name: str, reason: str) -> None:
        move(self._rows[name], State.SKIPPED, table=JOB_MOVES, reason=reason)


def rows_after_build(plan: Plan, most: Limits) -> Iterator[tuple[JobKind, str, dict[str, Any]]]:
    builds = [plan.build_job(name) for name in plan.builds]
    for name in builds[1:]:
        yield JobKind.BUILD, name, {"limits": dataclasses.asdict(most)}
    for name, test in plan.tests.items():
        options: dict[str, Any] = {
            "limits": dataclasses.asdict(limits_of(test, most)),
            "needs": needs_of(plan, name) if len(builds) > 1 else plan.needs.get(name) or builds,
        }
        if test.image:
            options["image"] = test.image
        if services := plan.services.get(name):
            options["services"] = {
                other: {
                    "image": one.service.image or "",
                    "limits": dataclasses.asdict(service_limits(one.service, most)),
                }
                for other, one in services.items()
            }
        yield JobKind.TEST, name, options
    yield JobKind.PUSH, "push", {"needs": [*builds[1:], *plan.tests] or builds}


def needs_of(plan: Plan, test: str) -> tuple[str, ...]:
    """The jobs that must have passed before a test's: those it names, and its images'."""
    images = (plan.build_job(image) for image in plan.images_of(test))
    return (*plan.needs.get(test, ()), *images)


def limits_of_job(plan: Plan, name: str, most: Limits) -> Limits:
    """What a test and its services may use together."""
    every = [limits_of(plan.tests[name], most)]
    every += [service_limits(one.service, most) for one in plan.services.get(name, {}).values()]
    return Limits(
        memory=sum(one.memory or 0 for one in every),
        cpus=sum(one.cpus or 0 for one in every),
        pids=sum(one.pids or 0 for one in every),
    )
