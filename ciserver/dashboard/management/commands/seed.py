"""``manage.py seed``: many projects with a long history, for measuring pages. Nothing is built.

It writes rows alone, and with ``--logs`` the logs of each project's last few pipelines: no
repository, image or container is behind them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import models, transaction
from django.utils import timezone

from ciserver.accounts.models import AuditEntry, Team, User
from ciserver.dashboard.models import ImageLabel, ImageLayer, ImageRecord, ImageUse, LayerRecord
from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import Job, JobKind, Pipeline, State, Step, TestCase
from ciserver.projects.models import Membership, Project, Role, TeamMembership
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

PREFIX = "seed-"
PLACES = ("qa", "stage", "prod")
WHOLE = 5  # pipelines of each project whose steps, test cases and logs are written, too
LINES = 1_000  # of each of their logs
CASES = 30
BATCH = 2000
FIRST_PORT = 40_000


class Command(BaseCommand):
    help = "Fill an empty database with projects and their history, for measuring pages."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--projects", type=int, default=200)
        parser.add_argument("--pipelines", type=int, default=20_000, help="of all together")
        parser.add_argument("--logs", action="store_true", help="write those of the last few, too")
        parser.add_argument("--yes", action="store_true", help="though real projects are there")

    def handle(self, *args: Any, **options: Any) -> None:
        if Project.objects.exclude(slug__startswith=PREFIX).exists() and not options["yes"]:
            raise CommandError(
                "This database has real projects. Set GANTRY_HOME to an empty folder, or add"
                " --yes if they may stand among seeded ones for ever."
            )
        if Project.objects.filter(slug__startswith=PREFIX).exists():
            raise CommandError("This database is seeded already. Begin with an empty GANTRY_HOME.")
        with transaction.atomic():
            whole = seed(projects=options["projects"], pipelines=options["pipelines"])
        if options["logs"]:
            _logs(whole)
        self.stdout.write(
            f"{options['projects']} projects, {Pipeline.objects.count()} pipelines,"
            f" {Release.objects.count()} releases, {Deployment.objects.count()} deployments,"
            f" {Delivery.objects.count()} deliveries, {AuditEntry.objects.count()} audit entries."
            " Next: manage.py bootstrap"
        )


def seed(*, projects: int, pipelines: int) -> list[Job]:
    """The jobs of each project's last WHOLE pipelines. The same rows for the same numbers: what is
    drawn by lot is drawn from one beginning."""
    lots = random.Random(1)  # noqa: S311 - nothing secret
    made = _projects(projects, lots)
    rows = _pipelines(made, pipelines // max(projects, 1), lots)
    whole = _parts(rows)
    releases = _releases(rows)
    _images(made, rows)
    _deployments(made, releases)
    _deliveries(rows)
    _audit(rows)
    return whole


def _projects(count: int, lots: random.Random) -> list[Project]:
    people = User.objects.bulk_create(
        [User(username=f"{PREFIX}person-{number}") for number in range(max(count // 4, 2))]
    )
    teams = Team.objects.bulk_create(
        [Team(name=f"{PREFIX}team-{number}") for number in range(max(count // 20, 1))]
    )
    for team in teams:
        team.members.set(lots.sample(people, min(5, len(people))))
    made = Project.objects.bulk_create(
        [
            Project(slug=f"{PREFIX}{number:04}", description=f"Service number {number}")
            for number in range(count)
        ]
    )
    Membership.objects.bulk_create(
        Membership(project=project, user=user, role=role)
        for project in made
        for user, role in zip(lots.sample(people, 2), (Role.OWNER, Role.DEVELOPER), strict=True)
    )
    TeamMembership.objects.bulk_create(
        TeamMembership(project=project, team=lots.choice(teams), role=Role.MAINTAINER)
        for project in made
    )
    return made


def _pipelines(projects: list[Project], each: int, lots: random.Random) -> list[Pipeline]:
    now = timezone.now()

    def rows() -> Iterator[Pipeline]:
        for number in range(1, each + 1):
            for project in projects:
                begun = now - timedelta(hours=each - number, minutes=lots.randrange(60))
                passed = lots.random() < 0.8
                yield Pipeline(
                    project=project,
                    number=number,
                    commit=_hex(f"{project.slug} {number}", 40),
                    ref="refs/heads/main" if passed else "refs/heads/topic",
                    title=f"Change number {number} of {project.slug}",
                    author=f"Person {lots.randrange(50)}",
                    state=State.PASSED if passed else State.FAILED,
                    reason="" if passed else "Test unit: 2 of 30 cases failed.",
                    place="" if passed else "gantry.yml: tests.unit",
                    started_at=begun,
                    finished_at=begun + timedelta(seconds=lots.uniform(4, 400)),
                    attempt=1,
                    repository=f"127.0.0.1:5055/{project.slug}" if passed else "",
                    digest=_digest(f"{project.slug} {number}") if passed else "",
                )

    return _write(Pipeline, rows())


def _parts(pipelines: list[Pipeline]) -> list[Job]:
    """Three jobs of each; of the last few of each project also steps and test cases. The jobs of
    those few."""
    last = max((row.number for row in pipelines), default=0)
    kinds = (("build", JobKind.BUILD), ("unit", JobKind.TEST), ("push", JobKind.PUSH))

    def jobs() -> Iterator[Job]:
        for row in pipelines:
            for position, (name, kind) in enumerate(kinds, start=1):
                yield Job(
                    pipeline=row,
                    position=position,
                    name=name,
                    kind=kind,
                    state=row.state if kind == JobKind.TEST else State.PASSED,
                    started_at=row.started_at,
                    finished_at=row.finished_at,
                )

    whole = [job for job in _write(Job, jobs()) if job.pipeline.number > last - WHOLE]
    _write(
        Step,
        (
            Step(
                job=job,
                position=position,
                text=f"RUN make part-{position}",
                place=f"Dockerfile:{position}",
                state=State.PASSED,
                cached=position < 4,
                seconds=0.3 * position,
                layer_bytes=1000 * position,
            )
            for job in whole
            if job.kind == JobKind.BUILD
            for position in range(1, 8)
        ),
    )
    _write(
        TestCase,
        (
            TestCase(
                job=job,
                suite="tests.test_all",
                name=f"test_{number}",
                outcome="failed" if job.state == State.FAILED and number < 2 else "passed",
                seconds=0.01 * number,
            )
            for job in whole
            if job.kind == JobKind.TEST
            for number in range(CASES)
        ),
    )
    return whole


def _logs(jobs: list[Job]) -> None:
    """Of each LINES lines, the last of which is an error where the job failed."""
    text = "".join(
        f"\x1b[36mpart {line % 7}\x1b[0m line {line}: gcc -O2 -c src/file_{line}.c -o {line}.o\n"
        for line in range(LINES)
    ).encode()
    for job in jobs:
        with LogWriter(job.log_path) as log:
            log.write(1, "out", text)
            if job.state == State.FAILED:
                log.write(1, "err", b"\x1b[31mERROR: 2 of 30 cases failed\x1b[0m\n")


def _releases(pipelines: list[Pipeline]) -> list[Release]:
    numbers: dict[int, int] = {}

    def rows() -> Iterator[Release]:
        for row in pipelines:
            if row.state != State.PASSED:
                continue
            numbers[row.project_id] = number = numbers.get(row.project_id, 0) + 1
            yield Release(
                project=row.project,
                number=number,
                pipeline=row,
                commit=row.commit,
                title=row.title,
                repository=row.repository,
                digest=row.digest,
                evidence={"tests": {"jobs": [{"name": "unit", "state": "passed"}], "cases": CASES}},
            )

    return _write(Release, rows())


def _images(projects: list[Project], pipelines: list[Pipeline]) -> None:
    """What each passed pipeline pushed: its own layer on its project's on one base."""
    shared = LayerRecord.objects.create(digest=_digest("base"), size=30_000_000, files=4000)
    layers = LayerRecord.objects.bulk_create(
        [
            LayerRecord(digest=_digest(f"packages {row.slug}"), size=9_000_000, files=900)
            for row in projects
        ]
    )
    of_project = {row.pk: layer for row, layer in zip(projects, layers, strict=True)}
    passed = [row for row in pipelines if row.digest]
    images = _write(
        ImageRecord, (ImageRecord(digest=row.digest, size=39_080_000) for row in passed)
    )
    own = _write(
        LayerRecord,
        (LayerRecord(digest=_digest(f"own {row.digest}"), size=80_000, files=3) for row in passed),
    )
    lines = ("mmdebstrap bookworm", "RUN pip install -r requirements.txt", "COPY . .")
    _write(
        ImageLayer,
        (
            ImageLayer(image=image, layer=layer, position=position, instruction=line)
            for row, image, last in zip(passed, images, own, strict=True)
            for position, (layer, line) in enumerate(
                zip((shared, of_project[row.project_id], last), lines, strict=True)
            )
        ),
    )
    _write(
        ImageLabel,
        (
            ImageLabel(image=image, name="org.opencontainers.image.title", value=row.project.slug)
            for row, image in zip(passed, images, strict=True)
        ),
    )
    _write(
        ImageUse,
        (
            ImageUse(project=row.project, pipeline=row, image=image, repository=row.repository)
            for row, image in zip(passed, images, strict=True)
        ),
    )


def _places(projects: list[Project], host_of: dict[int, Host]) -> dict[int, list[Environment]]:
    """The chain of each project, on its host."""
    places = Environment.objects.bulk_create(
        Environment(
            project=project,
            name=name,
            position=position,
            auto=position == 1,
            port=FIRST_PORT + index * len(PLACES) + position,
        )
        for index, project in enumerate(projects)
        for position, name in enumerate(PLACES, start=1)
    )
    Environment.hosts.through.objects.bulk_create(
        Environment.hosts.through(environment=place, host=host_of[place.project_id])
        for place in places
    )
    of_project: dict[int, list[Environment]] = {}
    for place in places:
        of_project.setdefault(place.project_id, []).append(place)
    return of_project


def _deployments(projects: list[Project], releases: list[Release]) -> None:
    """Each release went to the first place, each fourth to the second, each tenth to the last."""
    names = [f"{PREFIX}host-{number}" for number in range(max(len(projects) // 10, 1))]
    hosts = Host.objects.bulk_create([Host(name=name) for name in names])
    host_of = {project.pk: hosts[index % len(hosts)] for index, project in enumerate(projects)}
    of_project = _places(projects, host_of)
    serving: dict[int, Release] = {}

    def rows() -> Iterator[Deployment]:
        for release in releases:
            chain = of_project[release.project_id]
            for place, every in zip(chain, (1, 4, 10), strict=True):
                if release.number % every == 0 or release.number == 1:
                    serving[place.pk] = release
                    yield Deployment(
                        environment=place,
                        release=release,
                        kind=DeploymentKind.AUTO if place.auto else DeploymentKind.PROMOTION,
                        state=DeploymentState.SUCCEEDED,
                        requested_by="gantry",
                        finished_at=timezone.now(),
                    )

    made = _write(Deployment, rows())
    _write(
        DeploymentStep,
        (
            DeploymentStep(
                deployment=row,
                host=host_of[row.release.project_id],
                position=1,
                name="pull",
                state=DeploymentState.SUCCEEDED,
            )
            for row in made
        ),
    )
    _write(
        Running,
        (
            Running(
                environment_id=place,
                host=host_of[release.project_id],
                release=release,
                container_id=_hex(str(place), 64),
                digest=release.digest,
                healthy=True,
                since=timezone.now(),
            )
            for place, release in serving.items()
        ),
    )


def _deliveries(pipelines: list[Pipeline]) -> None:
    """One of each pipeline; each but a ref's last was superseded."""
    last: dict[tuple[int, str], int] = {(row.project_id, row.ref): row.number for row in pipelines}
    _write(
        Delivery,
        (
            Delivery(
                project=row.project,
                forge="github",
                delivery_id=f"{row.project_id}-{row.number}",
                event="push",
                kind="push",
                ref=row.ref,
                sha=row.commit,
                headers={"X-GitHub-Event": "push"},
                body=b"{}" * 500,
                verdict=Verdict.ACCEPTED,
                superseded=last[row.project_id, row.ref] != row.number,
                pipeline=row,
            )
            for row in pipelines
        ),
    )


def _audit(pipelines: list[Pipeline]) -> None:
    """As many entries as pipelines, in one true chain."""
    before = AuditEntry.objects.order_by("-id").first()
    digest = before.digest if before else ""
    rows = []
    for row in pipelines:
        entry = AuditEntry(
            at=timezone.now(),
            actor=row.author,
            action="deployment.promote",
            target=f"{row.project.slug} v{row.number}",
            detail={"environment": "prod"},
        )
        entry.digest = digest = entry.chained(digest)
        rows.append(entry)
    AuditEntry.objects.bulk_create(rows, BATCH)


def _write(model: type[models.Model], rows: Iterator[Any]) -> list[Any]:
    return list(model._default_manager.bulk_create(rows, BATCH))


def _hex(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _digest(text: str) -> str:
    return f"sha256:{_hex(text, 64)}"
