"""A test job: a command in a container that starts straight from the built snapshot."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace

from builders.build import StepInfo
from builders.containers import Container, open_container
from builders.images.store import Image
from ciserver.lib.crypto import Secret
from ciserver.pipelines import junit
from ciserver.pipelines.definition import Test
from ciserver.pipelines.models import State, TestCase
from ciserver.pipelines.runner import caches
from ciserver.pipelines.runner.artifacts import keep_artifacts
from ciserver.pipelines.runner.jobs import JobFailed, JobRun
from ciserver.pipelines.runner.recorder import StepRecorder, receipt_json
from ciserver.pipelines.runner.secrets import as_files, secrets_for
from ciserver.pipelines.runner.workshop import MAX_OUTPUT
from runtime.spec import Limits, Network, Outcome, Receipt

MAX_REPORT = 16 * 1024 * 1024
MAX_REPORTS = 200


def run_test(run: JobRun, test: Test, image: Image) -> None:
    """Run one test; its exit code decides. Raises JobFailed."""
    text = _text(test, image)
    if not text:
        raise JobFailed(
            "There is no command to run.",
            place=f"gantry.yml: tests.{run.job.name.partition(' ')[0]}.command",
            hint="Give the stage a CMD, or the test a command.",
        )
    place = f"gantry.yml: tests.{run.job.name.partition(' ')[0]}.secrets"
    secrets = secrets_for(run, test.secrets, place)
    with StepRecorder(run.job, run.log) as recorder:
        for attempt in range(1, test.retries + 2):
            failure = _try(run, test, image, secrets, recorder, _step(test, text, attempt))
            if failure is None or run.cancel.is_set():
                break
            if attempt <= test.retries:
                run.log.say(f"{failure.reason} Trying again ({attempt} of {test.retries}).")
    if failure:
        raise failure


def _step(test: Test, text: str, attempt: int) -> StepInfo:
    """Each try is a step, with a receipt of its own."""
    total = test.retries + 1
    return StepInfo(index=attempt, total=total, stage=test.stage or "", text=text, place="")


def _try(
    run: JobRun,
    test: Test,
    image: Image,
    secrets: Mapping[str, Secret],
    recorder: StepRecorder,
    step: StepInfo,
) -> JobFailed | None:
    """One try in a fresh container; why it failed. Cases of an earlier try are replaced."""
    with (
        as_files(secrets, run.ids) as mounts,
        open_container(
            image,
            store=run.workshop.store,
            state=run.workshop.state,
            ids=run.ids,
            network=Network.NONE,
        ) as container,
    ):
        recorder.step_started(step)
        slots = caches.restore(run, test, container)
        receipt = container.run(
            test.command,
            env=test.environment,
            secret_env={name: it.reveal() for name, it in secrets.items()},
            secret_mounts=mounts,
            limits=limits_of(test, run.workshop.limits()),
            on_output=lambda stream, data: recorder.step_output(step, stream, data),
            cancel=run.cancel,
            parent=run.cgroup,
        )
        cases = _read_reports(run, test, container)
        if test.artifacts:
            keep_artifacts(run, test.artifacts, container)
        failure = _failure(receipt, cases)
        if failure is None:
            caches.keep(run, slots, container)
        recorder.end(
            step,
            State.FAILED if failure else State.PASSED,
            seconds=receipt.wall,
            receipt=receipt_json(receipt),
        )
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


def _text(test: Test, image: Image) -> str:
    command = test.command
    if command is None:
        command = [*(image.config.entrypoint or ()), *(image.config.cmd or ())]
    return command if isinstance(command, str) else shlex.join(command)


def _failure(receipt: Receipt, cases: list[junit.Case]) -> JobFailed | None:
    if receipt.ok:
        return None
    if receipt.outcome is not Outcome.EXITED:
        return JobFailed(f"{_WORDS[receipt.outcome]}: {receipt.detail}.")
    bad = [case for case in cases if case.outcome in {"failed", "error"}]
    if bad:
        count = f"{len(bad)} of {len(cases)} cases failed, the first is"
        return JobFailed(f"{count} {bad[0].suite}.{bad[0].name}.")
    return JobFailed(
        f"The command ended with exit code {receipt.exit_code}.",
        hint="Its last lines are in the log.",
    )


_WORDS = {
    Outcome.OOM: "Out of memory",
    Outcome.TIMEOUT: "Out of time",
    Outcome.PIDS: "Too many processes",
    Outcome.DISK: "Out of disk",
    Outcome.OUTPUT: "Too much output",
    Outcome.SILENT: "Silent for too long",
    Outcome.CANCELLED: "Cancelled",
}


def _read_reports(run: JobRun, test: Test, container: Container) -> list[junit.Case]:
    """The cases of the test's JUnit reports, also kept as rows. A bad report is said, not fatal."""
    if test.junit is None:
        return []
    cases: list[junit.Case] = []
    paths = container.glob(test.junit)[:MAX_REPORTS]
    if not paths:
        run.log.say(f"No JUnit report at {test.junit}.")
    for path in paths:
        try:
            cases += junit.parse(container.read_file(path, MAX_REPORT))
        except (junit.ReportError, OSError) as error:
            run.log.say(f"The report {path} cannot be read: {error}.")
    mask = run.log.masker.mask_text
    cases = [
        replace(case, suite=mask(case.suite), name=mask(case.name), message=mask(case.message))
        for case in cases
    ]
    run.job.cases.all().delete()
    TestCase.objects.bulk_create(
        TestCase(
            job=run.job,
            suite=case.suite,
            name=case.name,
            outcome=case.outcome,
            seconds=case.seconds,
            message=case.message,
        )
        for case in cases
    )
    return cases
