"""What runs where: rows of projects by columns of environments, in a fixed number of queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import Exists, Max, OuterRef, Prefetch, Q, QuerySet

from ciserver.pipelines.models import Pipeline
from ciserver.projects.models import Project, roles_of
from ciserver.releases.models import (
    Deployment,
    DeploymentState,
    Environment,
    Release,
    Running,
)
from ciserver.releases.standing import STANDING

PAGE_SIZE = 22  # with three environments each, a first load of 150 KB


# What the matrix can be asked to show alone: words, and what one of the environments has.
FILTERS: dict[str, tuple[str, Q]] = {
    "unhealthy": ("Unhealthy", STANDING["unhealthy"]),
    "drift": ("Drift", STANDING["drift"]),
    "waiting": ("Waiting", STANDING["waiting"]),
    "moving": ("On the move", STANDING["moving"]),
}
ARCHIVED = "archived"  # projects, which are not shown otherwise


@dataclass(frozen=True, slots=True)
class Cell:
    """One environment: what its hosts run, what is on its way, and what could come next."""

    environment: Environment
    running: list[Running]
    latest: Deployment | None
    newest: Release | None
    candidate: Release | None
    may_promote: bool

    @property
    def shown(self) -> Running | None:
        """The container to draw: that of the newest release among the hosts."""
        return max(self.running, key=lambda one: one.release.number, default=None)

    @property
    def release(self) -> Release | None:
        return self.shown.release if self.shown else None

    @property
    def healthy(self) -> bool:
        return all(one.healthy for one in self.running)

    @property
    def mixed(self) -> bool:
        """Hosts run different releases: a deployment is half way, or stopped there."""
        return len({one.release_id for one in self.running}) > 1

    @property
    def drift(self) -> str:
        """How what a host runs is not what was put there."""
        found = [f"{one.host}: {one.drift}" for one in self.running if one.drift]
        if any(one.digest and one.digest != one.release.digest for one in self.running):
            found.append("a host reports another digest than the release has")
        served = {one.host_id for one in self.running}
        if served:
            hosts = self.environment.hosts.all()
            found += [f"{host} has nothing yet" for host in hosts if host.pk not in served]
        return "; ".join(found)

    @property
    def drifted(self) -> bool:
        return bool(self.drift)

    @property
    def behind(self) -> int:
        """How many releases are newer than the one that runs here."""
        if self.release is None or self.newest is None:
            return 0
        return max(self.newest.number - self.release.number, 0)

    @property
    def arriving(self) -> Deployment | None:
        if self.latest and not self.latest.finished and not self.latest.waiting:
            return self.latest
        return None

    @property
    def waiting(self) -> Deployment | None:
        """The last deployment, while it waits for its environment's policy."""
        return self.latest if self.latest and self.latest.waiting else None

    @property
    def failed(self) -> Deployment | None:
        """The last deployment, when it failed: the one before it still serves."""
        if self.latest and self.latest.state == DeploymentState.FAILED:
            return self.latest
        return None


@dataclass(frozen=True, slots=True)
class Row:
    project: Project
    role: int
    cells: dict[str, Cell] = field(default_factory=dict)
    pipeline: Pipeline | None = None
    newest: Release | None = None

    @property
    def chain(self) -> list[Cell]:
        return list(self.cells.values())


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: list[Row]
    columns: list[str]
    page: Page[Project]
    asked: str = ""
    show: str = ""  # a key of FILTERS, or ARCHIVED
    archived: bool = False  # whether there are such projects

    @property
    def filters(self) -> list[tuple[str, str]]:
        """Key and words of each, and of none."""
        found = [("", "All"), *((key, words) for key, (words, _) in FILTERS.items())]
        return [*found, (ARCHIVED, "Archived")] if self.archived else found

    @property
    def running(self) -> int:
        return sum(1 for row in self.rows for cell in row.chain if cell.running)

    @property
    def unhealthy(self) -> int:
        return sum(1 for row in self.rows for cell in row.chain if not cell.healthy)

    @property
    def table(self) -> list[tuple[Row, list[tuple[str, Cell | None]]]]:
        """Each row with its cells in the order of the columns; None where it has no such place."""
        return [(row, [(name, row.cells.get(name)) for name in self.columns]) for row in self.rows]


def matrix_for(user: Any, *, asked: str = "", show: str = "", page: str = "1") -> Matrix:
    """What ``user`` may see of the projects whose name, description or environment holds
    ``asked``; with ``show`` of those that have such an environment."""
    seen = Project.objects.visible_to(user)
    archived = seen.exclude(archived_at=None)
    projects = archived if show == ARCHIVED else seen.open()
    if asked:
        named = Exists(Environment.objects.filter(project=OuterRef("pk"), name__iexact=asked))
        text = Q(slug__icontains=asked) | Q(description__icontains=asked)
        projects = projects.filter(text | Q(named))
    if show in FILTERS:
        _, fits = FILTERS[show]
        here = Environment.objects.filter(fits, project=OuterRef("pk"))
        projects = projects.filter(Exists(here))
    shown = Paginator(projects, PAGE_SIZE).get_page(page)
    rows = rows_for(list(shown), user)
    places: dict[str, int] = {}
    for row in rows:
        for cell in row.chain:
            name, position = cell.environment.name, cell.environment.position
            places[name] = max(places.get(name, 0), position)
    columns = sorted(places, key=lambda name: (places[name], name))
    return Matrix(
        rows, columns, shown, asked, show if show in {*FILTERS, ARCHIVED} else "", archived.exists()
    )


def rows_for(projects: Sequence[Project], user: Any) -> list[Row]:
    """The rows of ``projects``, in nine queries however many there are."""
    environments = _environments(projects)
    newest = {release.project_id: release for release in _newest(projects)}
    pipelines = {pipeline.project_id: pipeline for pipeline in _last_pipelines(projects)}
    deployments = {latest.environment_id: latest for latest in _last_deployments(projects)}
    roles = roles_of(user, projects)
    named = set(user.may_promote_to.filter(project__in=projects).values_list("pk", flat=True))
    rows = []
    for project in projects:
        row = Row(
            project,
            roles.get(project.pk, 0),
            {},
            pipelines.get(project.pk),
            newest.get(project.pk),
        )
        before: Cell | None = None
        for environment in environments.get(project.pk, []):
            may = row.role >= environment.promote_role or environment.pk in named
            may = may and not project.archived_at
            before = _cell(row, environment, deployments.get(environment.pk), before, may=may)
            row.cells[environment.name] = before
        rows.append(row)
    return rows


def _cell(
    row: Row,
    environment: Environment,
    latest: Deployment | None,
    before: Cell | None,
    *,
    may: bool,
) -> Cell:
    """The cell of ``environment``, whose candidate is what runs in the place before it."""
    running = list(environment.running.all())
    here = max((one.release.number for one in running), default=0)
    candidate = before.release if before else row.newest
    if candidate is not None and (
        candidate.number <= here or (latest is not None and not latest.finished)
    ):
        candidate = None
    return Cell(environment, running, latest, row.newest, candidate, may)


def _environments(projects: Sequence[Project]) -> dict[int, list[Environment]]:
    served = Running.objects.select_related("release__project", "host").defer("release__evidence")
    running = Prefetch("running", served)
    found: dict[int, list[Environment]] = {}
    rows = Environment.objects.filter(project__in=projects).prefetch_related(running, "hosts")
    for environment in rows:
        found.setdefault(environment.project_id, []).append(environment)
    return found


def _newest(projects: Sequence[Project]) -> QuerySet[Release]:
    last = Release.objects.filter(project__in=projects).values("project").order_by()
    found = Release.objects.filter(pk__in=last.annotate(last=Max("pk")).values("last"))
    return found.select_related("project").defer("evidence")


def _last_pipelines(projects: Sequence[Project]) -> QuerySet[Pipeline]:
    last = Pipeline.objects.filter(project__in=projects).values("project").order_by()
    found = Pipeline.objects.filter(pk__in=last.annotate(last=Max("pk")).values("last"))
    return found.select_related("project")


def _last_deployments(projects: Sequence[Project]) -> QuerySet[Deployment]:
    here = Deployment.objects.filter(environment__project__in=projects)
    last = here.values("environment").order_by().annotate(last=Max("pk")).values("last")
    found = Deployment.objects.filter(pk__in=last).select_related("release__project")
    return found.defer("configuration", "release__evidence")
