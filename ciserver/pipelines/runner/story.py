"""A pipeline from claim to verdict."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass

from django.db.models import Max
from django.utils import timezone

from ciserver.lib import outbox
from ciserver.lib.durability import repeatable
from ciserver.lib.registry_lock import naming
from ciserver.lib.states import IllegalMove, move
from ciserver.pipelines import drain, events, room
from ciserver.pipelines.groups import wake_group
from ciserver.pipelines.leases import (
    TOPIC,
    Heartbeat,
    Lease,
    LeaseLost,
    claim,
    claim_next,
    hand_back,
    held,
)
from ciserver.pipelines.models import PIPELINE_MOVES, Job, JobKind, Pipeline, State, Step
from ciserver.pipelines.runner import coverage
from ciserver.pipelines.runner.commit_files import CommitFiles
from ciserver.pipelines.runner.completing import complete_logs
from ciserver.pipelines.runner.jobs import JobFailed, working_on
from ciserver.pipelines.runner.plan import Plan, make_plan
from ciserver.pipelines.runner.push import Pushed, Uploads
from ciserver.pipelines.runner.work import Work, rows_after_build
from ciserver.pipelines.runner.workshop import Workshop, open_workshop
from ciserver.pipelines.triggers import trigger_of
from ciserver.repositories import git
from runtime.spec import Limits

log = logging.getLogger(__name__)
IN_A_ROW = 10.0  # seconds: other messages of the queue come between, too
DIED = "Its worker died; another took the pipeline up."
NOT_KEPT = "The image of a pull request from a fork is tested, but not kept."


@dataclass(frozen=True, slots=True)
class _End:
    state: State
    reason: str = ""
    place: str = ""
    pushed: Pushed | None = None


def run_next() -> None:
    """Run the pipeline whose turn it is, and for a while those after it; then wake a worker for
    the next. A message for each would be a way through broker and main process for each."""
    until = time.monotonic() + IN_A_ROW
    while _run_one():
        if drain.asked() or time.monotonic() >= until:
            outbox.wake_for_more(TOPIC)
            return


def _run_one() -> bool:
    """Whether there was one that could begin."""
    if drain.asked():
        return False  # the promise stands: a worker that stays is woken for it
    if lack := room.lacking():
        room.tell(lack)  # the promises stand: the sweeper wakes a worker to look again
        return False
    with repeatable():
        lease = claim_next()
        if lease is not None:
            _run(lease)
    return lease is not None


def run(pipeline_id: int) -> None:
    """Run a queued pipeline to its end; do nothing when another worker has it."""
    with repeatable():
        if lease := claim(pipeline_id):
            _run(lease)


def _run(lease: Lease) -> None:
    pipeline = Pipeline.objects.select_related("project").get(pk=lease.pipeline_id)
    try:
        workshop = open_workshop()
        with ExitStack() as until_recorded:
            with Heartbeat(lease) as heart, workshop.store.in_use():
                end = _attempt(pipeline, lease, workshop, heart, until_recorded)
            if end.state == State.CANCELLED and heart.draining:
                hand_back(pipeline, lease)
            else:
                _finish(pipeline, lease, end)
    except (LeaseLost, IllegalMove, Job.DoesNotExist):
        log.warning("pipeline %s was taken from this worker before it ended", lease.pipeline_id)


def _attempt(
    pipeline: Pipeline,
    lease: Lease,
    workshop: Workshop,
    heart: Heartbeat,
    until_recorded: ExitStack,
) -> _End:
    try:
        return _work(pipeline, lease, workshop, heart, until_recorded)
    except JobFailed as failure:
        if failure.state == State.CANCELLED:
            by = heart.cancelled_by or "the service, because its worker lost the lease"
            return _End(State.CANCELLED, f"Cancelled by {by}.")
        return _End(State.FAILED, failure.reason, failure.place)
    except (LeaseLost, IllegalMove, Job.DoesNotExist):
        raise
    except Exception as error:
        log.exception("pipeline %s ended by an error of ours", pipeline.pk)
        return _End(State.FAILED, f"Gantry failed ({error}). See the worker's log.")


def _work(
    pipeline: Pipeline,
    lease: Lease,
    workshop: Workshop,
    heart: Heartbeat,
    until_recorded: ExitStack,
) -> _End:
    git_dir = git.git_dir(pipeline.project)
    complete_logs(workshop.state)  # of an attempt whose worker died, before its jobs are ended
    with held(lease):
        build = _first_job(pipeline, workshop.limits())
    shared = workshop.shared_cache(pipeline)
    with Uploads(workshop, pipeline, shared) as uploads:
        files = CommitFiles(pipeline, git_dir)
        with working_on(build, workshop, heart.cancel) as run, closing(files):
            run.log.say(f"Commit {pipeline.short_commit} of {pipeline.branch}")
            plan = make_plan(pipeline, git_dir, workshop.limits(), files)
            left_out = _left_out(pipeline, plan)
            with held(lease):
                build.name = plan.build_job(plan.deployed)
                build.save(update_fields=["name"])
                jobs, push = _other_jobs(pipeline, plan, left_out, workshop.limits())
            for notice in plan.notices:
                run.log.say(notice)
            work = Work(pipeline, plan, jobs, workshop, heart, uploads, shared)
            work.build(run, plan.deployed, files)
        work.run()
        if pipeline.from_fork:
            return _End(State.PASSED)

        def may_push() -> None:
            until_recorded.enter_context(naming(workshop.config.run))
            _check(lease)

        with working_on(push, workshop, heart.cancel) as run:
            pushed = uploads.finish(run.log, plan, heart.cancel, may_push)
    return _End(State.PASSED, pushed=pushed)


def _check(lease: Lease) -> None:
    with held(lease):
        pass  # not for as long as a push may take: others write meanwhile


def _first_job(pipeline: Pipeline, limits: Limits) -> Job:
    """The build job. What an attempt whose worker died has done stays beside, with its logs."""
    earlier = pipeline.jobs.filter(run=pipeline.run)
    earlier.filter(state=State.QUEUED).delete()
    died = earlier.filter(state=State.RUNNING)
    Step.objects.filter(job__in=died, state=State.RUNNING).update(state=State.CANCELLED)
    died.update(state=State.CANCELLED, finished_at=timezone.now(), reason=DIED)
    return Job.objects.create(
        pipeline=pipeline,
        position=_last_position(pipeline) + 1,
        run=pipeline.run,
        name="build",
        kind=JobKind.BUILD,
        options={"limits": dataclasses.asdict(limits)},
    )


def _last_position(pipeline: Pipeline) -> int:
    return pipeline.jobs.aggregate(last=Max("position"))["last"] or 0


def _left_out(pipeline: Pipeline, plan: Plan) -> dict[str, str]:
    """Why ``when`` leaves out which tests. Call it in no transaction: of many patterns and many
    changed files it takes its time."""
    trigger = trigger_of(pipeline, plan.inputs, plan.paths)
    asked = {id(test.when): test.when for test in plan.tests.values()}  # one for all of a matrix
    refusals = {key: when.refusal(trigger) for key, when in asked.items()}
    return {name: refusals[id(test.when)] for name, test in plan.tests.items()}


def _other_jobs(
    pipeline: Pipeline, plan: Plan, left_out: Mapping[str, str], most: Limits
) -> tuple[list[Job], Job]:
    jobs = [
        Job(pipeline=pipeline, run=pipeline.run, name=name, kind=kind, options=options)
        for kind, name, options in rows_after_build(plan, most)
    ]
    if pipeline.keep_passed:
        kept = _passed_before(pipeline)
        jobs = [job for job in jobs if job.name not in kept]
    for position, job in enumerate(jobs, start=_last_position(pipeline) + 1):
        job.position = position
    for job in jobs:
        if job.kind == JobKind.TEST:
            job.reason = left_out[job.name]
            job.state = State.SKIPPED if job.reason else State.QUEUED
        elif job.kind == JobKind.PUSH and pipeline.from_fork:
            job.reason, job.state = NOT_KEPT, State.SKIPPED
    *tests, push = Job.objects.bulk_create(jobs)
    events.publish(pipeline.pk)
    return tests, push


def _passed_before(pipeline: Pipeline) -> set[str]:
    """Tests whose last run passed: when only what failed is run again, their results count."""
    return {
        job.name
        for job in pipeline.latest_jobs()
        if job.kind == JobKind.TEST and job.state == State.PASSED
    }


def _finish(pipeline: Pipeline, lease: Lease, end: _End) -> None:
    told = coverage.figures(pipeline)
    with held(lease):
        move(
            pipeline,
            end.state,
            table=PIPELINE_MOVES,
            guard={"fence": lease.fence},
            reason=end.reason,
            place=end.place,
            finished_at=timezone.now(),
            lease_until=None,
            **told,
            **(dataclasses.asdict(end.pushed) if end.pushed else {}),
        )
        pipeline.jobs.filter(state=State.QUEUED).update(state=State.CANCELLED)
        if end.state == State.PASSED and not pipeline.from_fork:
            outbox.promise("pipeline.passed", pipeline.pk)
            if end.pushed:
                outbox.promise("image.pushed", pipeline.pk)
        wake_group(pipeline)
    events.publish(pipeline.pk)
    events.publish_matrix()
