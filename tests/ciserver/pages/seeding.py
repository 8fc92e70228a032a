"""Rows and logs to look at: what a few days of work with Gantry leave behind."""

from __future__ import annotations

import hashlib
import shutil
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import Job, JobKind, Pipeline, State, Step, TestCase
from ciserver.projects.models import Membership, Project, Role
from ciserver.releases.models import (
    Deployment,
    DeploymentKind,
    DeploymentState,
    DeploymentStep,
    Environment,
    Host,
    Release,
    Running,
)
from ciserver.webhooks.models import Delivery, Verdict
from tests.ciserver.pages.seeded_images import make_image

MIB = 1024 * 1024


def digest_of(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def commit_of(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def receipt(wall: float, memory: int, **fields: Any) -> dict[str, Any]:
    return {
        "outcome": "exited",
        "exit_code": 0,
        "wall": wall,
        "user": wall * 0.6,
        "system": wall * 0.1,
        "peak_memory": memory,
        "read_bytes": 3 * MIB,
        "written_bytes": 11 * MIB,
        "pids_peak": 7,
        "output_bytes": 4000,
        "detail": "",
    } | fields


def make_project(slug: str, owner: Any, *, description: str = "", **fields: Any) -> Project:
    if not Pipeline.objects.exists():
        # Logs are named by rows, whose numbers begin anew with each test's database.
        shutil.rmtree(settings.GANTRY.logs / "pipelines", ignore_errors=True)
    project = Project.objects.create(slug=slug, description=description, **fields)
    Membership.objects.create(project=project, user=owner, role=Role.OWNER)
    return project


def make_environments(project: Project, *names: str) -> list[Environment]:
    host, _ = Host.objects.get_or_create(name="local")
    made = []
    for position, name in enumerate(names, start=1):
        environment = Environment.objects.create(
            project=project, name=name, position=position, auto=position == 1
        )
        environment.hosts.add(host)
        made.append(environment)
    return made


def make_pipeline(
    project: Project, number: int, *, state: str = State.PASSED, title: str = "", **fields: Any
) -> Pipeline:
    now = timezone.now() - timedelta(hours=fields.pop("hours", 0), seconds=20)
    running = state in {State.RUNNING, State.QUEUED}
    values: dict[str, Any] = {
        "commit": commit_of(f"{project.slug}{number}"),
        "ref": "refs/heads/main",
        "title": title or f"Change number {number}",
        "author": "Alice Anders",
        "started_at": None if state == State.QUEUED else now,
        "finished_at": None if running else now + timedelta(seconds=8.4),
        "attempt": 0 if state == State.QUEUED else 1,
    }
    if state == State.PASSED:
        values |= {
            "repository": f"127.0.0.1:5055/{project.slug}",
            "digest": digest_of(f"{project.slug}{number}"),
            "bytes_sent": 214_000,
            "bytes_existing": 31 * MIB,
        }
    pipeline = Pipeline.objects.create(
        project=project, number=number, state=state, **(values | fields)
    )
    Pipeline.objects.filter(pk=pipeline.pk).update(created_at=now)
    pipeline.refresh_from_db()
    return pipeline


BUILD_STEPS = [
    ("FROM gantry/python:bookworm", True, 0.0, 0),
    ("WORKDIR /app", True, 0.0, 0),
    ("COPY requirements.txt .", True, 0.0, 412),
    ("RUN pip install --no-cache-dir -r requirements.txt", True, 0.0, 18 * MIB),
    ("COPY . .", False, 0.04, 88_000),
    ("RUN python -m compileall -q hello", False, 1.3, 210_000),
    ('CMD ["python", "-m", "hello"]', False, 0.0, 0),
]


def make_job(pipeline: Pipeline, position: int, name: str, kind: str, **fields: Any) -> Job:
    start = pipeline.started_at or timezone.now()
    state = fields.pop("state", State.PASSED)
    offset = fields.pop("offset", position - 1.0)
    seconds = fields.pop("seconds", 1.0)
    begun = start + timedelta(seconds=offset)
    values = {
        "started_at": None if state == State.QUEUED else begun,
        "finished_at": begun + timedelta(seconds=seconds)
        if state not in {State.RUNNING, State.QUEUED}
        else None,
    }
    return Job.objects.create(
        pipeline=pipeline, position=position, name=name, kind=kind, state=state, **values, **fields
    )


def make_build(pipeline: Pipeline, **fields: Any) -> Job:
    """A build job whose first steps came from the cache, with a log in colours."""
    job = make_job(pipeline, 1, "build", JobKind.BUILD, offset=0.1, seconds=1.6, **fields)
    for position, (text, cached, seconds, size) in enumerate(BUILD_STEPS, start=1):
        ran = text.startswith("RUN") and not cached
        Step.objects.create(
            job=job,
            position=position,
            text=text,
            place=f"Dockerfile:{position}",
            state=State.PASSED,
            cached=cached,
            seconds=seconds,
            layer_bytes=size,
            receipt=receipt(seconds, 61 * MIB) if ran else None,
        )
    with LogWriter(job.log_path) as log:
        log.say("Commit read: 12 files, 88 kB", 5)
        for name in ("__init__", "__main__", "app", "greeting", "health", "version"):
            log.write(6, "out", f"Compiling '\x1b[36mhello/{name}.py\x1b[0m'...\n".encode())
        log.write(6, "err", b"\x1b[33mwarning:\x1b[0m hello/app.py:14: unused import 'os'\n")
    return job


def make_test(pipeline: Pipeline, *, failing: int = 0, total: int = 31, **fields: Any) -> Job:
    state = State.FAILED if failing else State.PASSED
    if failing:
        fields = {
            "reason": f"{failing} of {total} cases failed, the first is "
            "tests.test_greeting.test_greets_by_name.",
            "place": "gantry.yml: tests.unit",
            "hint": "What each of them said is with the cases, what they wrote in the log.",
        } | fields
    job = make_job(
        pipeline,
        2,
        "unit",
        JobKind.TEST,
        state=state,
        offset=1.8,
        seconds=4.2,
        options={"limits": {"memory": 512 * MIB, "cpus": 1.0, "timeout": 600.0, "pids": 256}},
        **fields,
    )
    code = 1 if failing else 0
    Step.objects.create(
        job=job,
        position=1,
        text="python -m pytest -q --junitxml=report.xml",
        stage="test",
        state=state,
        seconds=4.1,
        receipt=receipt(4.1, 143 * MIB, exit_code=code),
    )
    names = ["greets_by_name", "greets_the_world", "health_answers", "version_is_the_commit"]
    TestCase.objects.bulk_create(
        TestCase(
            job=job,
            suite="tests.test_greeting" if index < 12 else "tests.test_health",
            name=f"test_{names[index % 4]}" + ("" if index < 4 else f"[{index}]"),
            outcome="failed" if index < failing else "passed",
            seconds=0.012 * (index + 1),
            message="AssertionError: assert 'Hello, Bo' == 'Hello, Bob'\n  - Hello, Bob\n"
            "  ?          -\n  + Hello, Bo"
            if index < failing
            else "",
        )
        for index in range(total)
    )
    with LogWriter(job.log_path) as log:
        write_pytest(log, failing=failing, total=total)
        if failing:
            log.say(str(job.reason))
    return job


def write_pytest(log: LogWriter, *, failing: int, total: int) -> None:
    out = ["\x1b[1m============ test session starts ============\x1b[0m"]
    out += ["platform linux -- Python 3.11.2, pytest-8.3.3", f"collected {total} items", ""]
    for index in range(total):
        word = "\x1b[31mFAILED" if index < failing else "\x1b[32mPASSED"
        percent = (index + 1) * 100 // total
        out.append(f"tests/test_greeting.py::test_{index} {word}\x1b[0m [{percent:3}%]")
    if failing:
        out += ["", "\x1b[1m\x1b[31mE   AssertionError: assert 'Hello, Bo' == 'Hello, Bob'\x1b[0m"]
        out += ["\x1b[31m- Hello, Bob\x1b[0m", "\x1b[32m+ Hello, Bo\x1b[0m"]
    out.append(f"\x1b[1m{failing} failed, {total - failing} passed in 3.91s\x1b[0m")
    log.write(1, "out", ("\n".join(out) + "\n").encode())


def make_push(pipeline: Pipeline, **fields: Any) -> Job:
    job = make_job(pipeline, 3, "push", JobKind.PUSH, offset=6.1, seconds=0.2, **fields)
    if job.state == State.PASSED:
        with LogWriter(job.log_path) as log:
            log.say(f"Pushed {pipeline.repository}@{pipeline.digest}")
            log.say("209 KiB travelled, 31 MiB were there.")
    return job


def make_passed(project: Project, number: int, **fields: Any) -> Pipeline:
    pipeline = make_pipeline(project, number, **fields)
    make_build(pipeline)
    make_test(pipeline)
    make_push(pipeline)
    return pipeline


def make_failed(project: Project, number: int, **fields: Any) -> Pipeline:
    values = {
        "reason": "Test unit: 2 of 31 cases failed, the first is "
        "tests.test_greeting.test_greets_by_name.",
        "place": "gantry.yml: tests.unit",
    }
    pipeline = make_pipeline(project, number, state=State.FAILED, **(values | fields))
    make_build(pipeline)
    make_test(pipeline, failing=2)
    make_push(pipeline, state=State.CANCELLED)
    return pipeline


def make_release(pipeline: Pipeline, number: int) -> Release:
    release = Release.objects.create(
        project=pipeline.project,
        number=number,
        pipeline=pipeline,
        commit=pipeline.commit,
        title=pipeline.title,
        repository=pipeline.repository,
        digest=pipeline.digest,
        evidence={
            "tests": {
                "jobs": [{"name": "unit", "state": "passed"}],
                "cases": 31,
                "passed": 31,
            },
            "receipts": {
                "steps": 8,
                "cached": 4,
                "wall_seconds": 5.4,
                "cpu_seconds": 3.8,
                "peak_memory": 143 * MIB,
            },
        },
    )
    Release.objects.filter(pk=release.pk).update(created_at=pipeline.finished_at)
    return release


def deploy(
    release: Release,
    environment: Environment,
    *,
    state: str = DeploymentState.SUCCEEDED,
    healthy: bool = True,
    hours: float = 1,
    reason: str = "",
    by: str = "alice",
) -> Deployment:
    """A deployment as it ended; one that succeeded also serves."""
    then = timezone.now() - timedelta(hours=hours)
    kind = DeploymentKind.AUTO if environment.auto else DeploymentKind.PROMOTION
    deployment = Deployment.objects.create(
        environment=environment,
        release=release,
        kind=kind,
        state=state,
        reason=reason,
        requested_by=by,
        bytes_pulled=214_000,
        finished_at=then,
    )
    Deployment.objects.filter(pk=deployment.pk).update(created_at=then)
    host = environment.hosts.get()
    steps = [
        ("pull", "214,016 of 32,719,872 bytes of layers were not here yet"),
        ("start", f"{environment.project.slug}-{environment.name}-v{release.number}"),
        ("check", "unhealthy: GET /healthz answered 500" if reason else "healthy after 0.6 s"),
        ("switch", "port 8101 now leads to it"),
        ("retire", "the one before is gone"),
    ]
    for position, (name, detail) in enumerate(steps[: 3 if reason else 5], start=1):
        DeploymentStep.objects.create(
            deployment=deployment,
            host=host,
            position=position,
            name=name,
            detail=detail,
            state=state if name == "check" else DeploymentState.SUCCEEDED,
        )
    if state == DeploymentState.SUCCEEDED:
        Running.objects.update_or_create(
            environment=environment,
            host=host,
            defaults={
                "release": release,
                "container_id": commit_of(str(deployment.pk)),
                "digest": release.digest,
                "healthy": healthy,
                "since": then,
            },
        )
    return deployment


def make_delivery(project: Project, pipeline: Pipeline | None, number: int, **fields: Any) -> None:
    values: dict[str, Any] = {
        "forge": "git",
        "event": "push",
        "kind": "push",
        "ref": "refs/heads/main",
        "sha": commit_of(f"{project.slug}{number}"),
        "verdict": Verdict.ACCEPTED,
        "delivery_id": f"{project.slug}-{number}",
    }
    values |= fields
    if values["verdict"] == Verdict.ACCEPTED:
        project.deliveries.filter(ref=values["ref"]).update(superseded=True)
    Delivery.objects.create(project=project, pipeline=pipeline, **values)


def make_hello(owner: Any) -> Project:
    """A project with a history: releases on their way through two environments."""
    hello = make_project("hello", owner, description="Greets whoever asks")
    qa, prod = make_environments(hello, "qa", "prod")
    titles = [
        "Say hello",
        "Answer health checks",
        "Greet by name",
        "Show the commit that runs",
        "Cache greetings for a minute",
    ]
    releases = []
    for number, title in enumerate(titles, start=1):
        hours = (len(titles) - number) * 7 + 1
        pipeline = make_passed(hello, number, title=title, hours=hours)
        releases.append(make_release(pipeline, number))
        make_image(pipeline, **{"org.example.team": "greeters"})
        make_delivery(hello, pipeline, number)
        deploy(releases[-1], qa, hours=hours, by="gantry")
    deploy(releases[1], prod, hours=28)
    deploy(releases[2], prod, hours=14)
    failed = make_failed(hello, 6, title="Shorten names that are too long")
    make_delivery(hello, failed, 6)
    make_delivery(hello, None, 7, verdict=Verdict.IGNORED, detail="Branch was deleted.", sha="")
    return hello


def make_others(owner: Any) -> None:
    """Neighbours of ``hello`` in other states."""
    shop = make_project("shop", owner, description="Orders, invoices and the back office")
    qa, stage, prod = make_environments(shop, "qa", "stage", "prod")
    made = []
    for number in range(1, 4):
        hours = 50 - number * 10
        title = ["Add a basket", "Sum with decimals", "Ship to islands"][number - 1]
        made.append(make_release(make_passed(shop, number, title=title, hours=hours), number))
        deploy(made[-1], qa, hours=hours, by="gantry")
    deploy(made[1], stage, hours=20)
    deploy(
        made[2],
        stage,
        hours=3,
        state=DeploymentState.FAILED,
        reason="v3 did not become healthy in 60 s on local: GET /healthz answered 500.",
    )
    deploy(made[0], prod, hours=30, healthy=False)
    search = make_project("search", owner, description="Finds things")
    make_environments(search, "qa", "prod")
    pipeline = make_pipeline(search, 1, state=State.RUNNING, title="Index in the background")
    make_build(pipeline)
    make_project("wiki", owner)
