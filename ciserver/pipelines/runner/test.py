"""A test job: a command in a container that starts straight from the built snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from django.db.models import Count, Sum
from django.db.models.functions import Length

from builders.build import StepInfo
from builders.containers import Container, open_container
from builders.errors import BuildError, UserError
from builders.images.store import Image
from ciserver.lib.crypto import Secret
from ciserver.pipelines import junit
from ciserver.pipelines.definition import Test
from ciserver.pipelines.faults import key_at
from ciserver.pipelines.models import State, TestCase
from ciserver.pipelines.runner import caches
from ciserver.pipelines.runner.artifacts import keep_artifacts
from ciserver.pipelines.runner.build import Images
from ciserver.pipelines.runner.command import command_of, text_of
from ciserver.pipelines.runner.coverage import read_coverage
from ciserver.pipelines.runner.images import image_of, located
from ciserver.pipelines.runner.jobs import JobFailed, JobRun
from ciserver.pipelines.runner.outcomes import WORDS, next_step
from ciserver.pipelines.runner.plan import Plan
from ciserver.pipelines.runner.recorder import StepRecorder, receipt_json
from ciserver.pipelines.runner.reports import found
from ciserver.pipelines.runner.secrets import as_files, secrets_for_all
from ciserver.pipelines.runner.services import PreparedService, Services, running_services
from ciserver.pipelines.runner.workshop import MAX_OUTPUT
from ciserver.pipelines.service_definition import Service, can_be_host
from ciserver.pipelines.triggers import told
from runtime.errors import SpecError
from runtime.network import NetworkHandle, open_private
from runtime.spec import BindMount, Limits, Network, Outcome, Receipt

MAX_REPORT = 16 * 1024 * 1024
MAX_REPORTS = 2000  # Maven writes one for each class
MAX_TOGETHER = 128 * 1024 * 1024
CASES_AT_ONCE = 5000  # rows of one statement: others may write between
MOST_WORDS = 8 * 1024 * 1024  # characters that the cases of a pipeline say


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one job runs: a command in an image, with services beside it."""

    test: Test
    place: str
    image: Image
    command: str | list[str] | None
    secrets: Mapping[str, Secret]
    environment: Mapping[str, str]
    services: tuple[PreparedService, ...] = ()

    def step(self, attempt: int) -> StepInfo:
        """Each try is a step behind those of its services, with a receipt of its own."""
        each = len(self.services) + 1
        total = each * (self.test.retries + 1)
        text = text_of(self.image, self.command)
        return StepInfo(each * attempt, total, self.test.stage or "", text, "")

    def services_of(self, attempt: int) -> list[PreparedService]:
        first = (len(self.services) + 1) * (attempt - 1) + 1
        return [one.at(position) for position, one in enumerate(self.services, first)]


def run_test(run: JobRun, plan: Plan, images: Images) -> None:
    """Run the test of ``run``'s job; its exit code decides. Raises JobFailed."""
    asked = _asked(run, plan, images)
    failure: JobFailed | None = None
    with StepRecorder(run.job, run.log) as recorder:
        for attempt in range(1, asked.test.retries + 2):
            run.job.cases.update(superseded=True)  # those of an earlier try
            try:
                failure = _try(run, asked, recorder, attempt)
            except JobFailed as error:
                failure = error
            if failure is None or run.cancel.is_set():
                break
            if attempt <= asked.test.retries:
                run.log.say(f"{failure.reason} Trying again ({attempt} of {asked.test.retries}).")
    if failure:
        raise failure


def _asked(run: JobRun, plan: Plan, images: Images) -> _Asked:
    job = run.job.name
    test, place = plan.tests[job], plan.places[job]
    image = _image(run, plan, images, test, place)
    follow = test.keeps_entrypoint
    command = command_of(image, test.entrypoint, test.command, follow=follow)
    if not text_of(image, command):
        raise JobFailed(
            "There is no command to run.",
            place=key_at(place, "command"),
            hint="Give the stage a CMD, or the test a command.",
        )
    planned = plan.services.get(job, {})
    named = {place: test.secrets, **{one.place: one.service.secrets for one in planned.values()}}
    secrets = secrets_for_all(run, named)
    services = tuple(
        PreparedService(
            name=name,
            service=one.service,
            image=_image(run, plan, images, one.service, one.place),
            secrets={key: secrets[key] for key in one.service.secrets},
            place=one.place,
            step=StepInfo(0, 0, name, "", ""),
            wanted=one.wanted,
        )
        for name, one in planned.items()
    )
    own = {key: secrets[key] for key in test.secrets}
    environment = {**told(run.job.pipeline), **test.environment}
    return _Asked(test, place, image, command, own, environment, services)


def _image(run: JobRun, plan: Plan, images: Images, part: Test | Service, place: str) -> Image:
    try:
        return image_of(run, plan, images, part)
    except (BuildError, JobFailed) as error:
        raise located(error, key_at(place, "image")) from error


def _try(run: JobRun, asked: _Asked, recorder: StepRecorder, attempt: int) -> JobFailed | None:
    """One try in fresh containers; why it failed. Raises JobFailed when a service did."""
    test, step = asked.test, asked.step(attempt)
    with ExitStack() as stack:
        services: Services | None = None
        network: Network | NetworkHandle = Network.EGRESS if _egress(test) else Network.NONE
        if asked.services:
            private = stack.enter_context(
                open_private(
                    state=run.workshop.state,
                    with_egress=_egress(test),
                    allow=run.workshop.config.egress_allow,
                )
            )
            beside = asked.services_of(attempt)
            services = stack.enter_context(running_services(run, beside, private, recorder))
            network = stack.enter_context(private.member(_own_name(run, asked)))
        mounts = stack.enter_context(as_files(asked.secrets, run.ids))
        container = stack.enter_context(
            open_container(
                asked.image,
                store=run.workshop.store,
                state=run.workshop.state,
                ids=run.ids,
                network=network,
                egress_allow=run.workshop.config.egress_allow,
            )
        )
        recorder.step_started(step)
        slots = caches.restore(run, test.cache, asked.environment, container)
        environment = {"GANTRY_TRY": str(attempt), **asked.environment}
        receipt = _run(run, asked, environment, container, mounts, step, recorder)
        cases = _read_reports(run, test, container)
        if test.coverage:
            read_coverage(run, test, container)
        if test.artifacts:
            keep_artifacts(run, test.artifacts, container)
        failure = _failure(receipt, cases, asked.place)
        if failure is None:
            caches.keep(run, slots, container)
        recorder.end(
            step,
            State.FAILED if failure else State.PASSED,
            seconds=receipt.wall,
            receipt=receipt_json(receipt),
        )
        lost = services.lost() if services and not run.cancel.is_set() else []
    return _with_lost(run, failure, lost)


def _run(
    run: JobRun,
    asked: _Asked,
    environment: Mapping[str, str],
    container: Container,
    mounts: Sequence[BindMount],
    step: StepInfo,
    recorder: StepRecorder,
) -> Receipt:
    test = asked.test
    try:
        return container.run(
            asked.command,
            env=environment,
            secret_env={name: it.reveal() for name, it in asked.secrets.items()},
            secret_mounts=mounts,
            workdir=test.working_dir,
            user=test.user,
            limits=limits_of(test, run.workshop.limits()),
            on_output=partial(recorder.step_output, step),
            on_end=lambda: run.log.flush(step.index),
            cancel=run.cancel,
            parent=run.cgroup,
            keep=run.workshop.config.keep_failed,
            note=recorder.note(step),
        )
    except (UserError, SpecError) as error:  # a user that is not there, a folder of the kernel
        raise JobFailed(error.message, place=asked.place, hint=error.hint) from error


def _egress(test: Test) -> bool:
    return test.network == "egress"


def _own_name(run: JobRun, asked: _Asked) -> str:
    """By which services can find the test: its own name, unless one of them has it."""
    taken = {one.name for one in asked.services}
    names = (run.job.name.partition(" ")[0], "test", "gantry-test")
    return next(name for name in names if name not in taken and can_be_host(name))


def _with_lost(run: JobRun, failure: JobFailed | None, lost: list[str]) -> JobFailed | None:
    for sentence in lost:
        run.log.say(sentence)
    if failure and lost:
        failure.reason = f"{failure.reason} {' '.join(lost)}"
    return failure


def limits_of(test: Test, most: Limits) -> Limits:
    """What ``gantry.yml`` allows the test, or the defaults: of some, the ``most`` it may ask."""
    return Limits(
        memory=test.memory,
        cpus=test.cpus,
        pids=test.pids,
        timeout=test.timeout,
        silence=test.silence or most.silence,
        disk=test.disk or most.disk,
        inodes=test.inodes or most.inodes,
        output=MAX_OUTPUT,
    )


def _failure(receipt: Receipt, cases: junit.Cases, place: str) -> JobFailed | None:
    """Why a test that is written at ``place`` did not pass, and what to do next."""
    if receipt.ok:
        return None
    if receipt.outcome is not Outcome.EXITED:
        reason = f"{WORDS[receipt.outcome]}: {receipt.detail}."
        return JobFailed(reason, place=place, hint=next_step(receipt, place))
    if cases.failed:
        count = f"{cases.failed} of {cases.count} cases failed"
        first = cases.first_failed
        return JobFailed(
            f"{count}, the first is {first.suite}.{first.name}." if first else f"{count}.",
            place=place,
            hint="What each of them said is with the cases, what they wrote in the log.",
        )
    if receipt.detail:  # it did not run at all
        return JobFailed(
            f"The command ended with exit code {receipt.exit_code} ({receipt.detail}).",
            place=place,
            hint="Name a program that is in the image and may be executed, with its path.",
        )
    return JobFailed(
        f"The command ended with exit code {receipt.exit_code}.",
        place=place,
        hint="Its last lines are in the log.",
    )


def _read_reports(run: JobRun, test: Test, container: Container) -> junit.Cases:
    """The cases of the test's JUnit reports, also kept as rows. A bad report is said, not fatal."""
    if not test.junit:
        return junit.Cases()
    room = MAX_TOGETHER
    there = _cases_of(run)
    most = max(0, min(junit.MAX_CASES, junit.MOST_OF_PIPELINE - there.count))
    cases = junit.Cases(most)
    for path in found(run, container, test.junit, "JUnit report", most=MAX_REPORTS):
        try:
            data = container.read_file(path, min(MAX_REPORT, room))
            room -= len(data)
            cases.extend(junit.parse(data, run.log.masker.mask_text, most=most))
        except (junit.ReportError, OSError) as error:
            run.log.say(f"The report {path} cannot be read: {error}.")
    _note_left_out(run, cases.left_out)
    _keep_cases(run, cases.kept, MOST_WORDS - there.words)
    return cases


def _note_left_out(run: JobRun, count: int) -> None:
    """For pages and the API: of the last try, as the cases that they show are."""
    run.job.cases_left_out = count
    run.job.save(update_fields=["cases_left_out"])
    if count:
        run.log.say(
            f"{count} test cases are not kept: {junit.MAX_CASES} of a job and "
            f"{junit.MOST_OF_PIPELINE} of a pipeline are, failed ones first."
        )


@dataclass(frozen=True, slots=True)
class _There:
    """Of the cases of all jobs of a pipeline's run, earlier tries too: how many, what they say."""

    count: int
    words: int  # characters


def _cases_of(run: JobRun) -> _There:
    rows = TestCase.objects.filter(job__pipeline=run.job.pipeline_id, job__run=run.job.run)
    found = rows.aggregate(count=Count("pk"), words=Sum(Length("message")))
    return _There(found["count"], found["words"] or 0)


def _keep_cases(run: JobRun, cases: Sequence[junit.Case], room: int) -> None:
    """As rows, with ``room`` characters of their messages: pages and the API tell them all."""
    silent = set()  # by their places: those that failed speak first
    for place, case in sorted(enumerate(cases), key=lambda it: it[1].outcome not in junit.BAD):
        room -= len(case.message)
        if case.message and room < 0:
            silent.add(place)
    if silent:
        count = len(silent)
        run.log.say(f"What {count} of the cases say is not kept: it is too much for one pipeline.")
    TestCase.objects.bulk_create(
        [
            TestCase(
                job=run.job,
                suite=case.suite,
                name=case.name,
                outcome=case.outcome,
                seconds=case.seconds,
                message="" if place in silent else case.message,
            )
            for place, case in enumerate(cases)
        ],
        batch_size=CASES_AT_ONCE,
    )
