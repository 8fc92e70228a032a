"""``/metrics``: how Gantry is doing, for Prometheus, counted from the database when asked.

Nothing is counted in memory: the numbers are right whichever process answers, and stay right when
one is killed. https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, cast

from django.db.models import Count, FloatField, Func, Min, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from ciserver import __version__
from ciserver.accounts.authentication import reader
from ciserver.accounts.models import AuditCheck
from ciserver.lib.models import OutboxEntry
from ciserver.lib.problems import problem_response
from ciserver.pipelines.models import FINISHED, Job, Pipeline, State
from ciserver.projects.models import Project
from ciserver.releases.models import Deployment, DeploymentState, Running, Stop
from ciserver.webhooks.models import Delivery

BUSY = (State.QUEUED, State.RUNNING)
WAITING = (DeploymentState.WAITING, DeploymentState.QUEUED, DeploymentState.RUNNING)
ENDED = (DeploymentState.SUCCEEDED, DeploymentState.FAILED)


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """For administrators alone: the labels name every project. 401 without a token."""
    user = reader(request)
    if user is None or not user.is_superuser:
        answer = problem_response(
            401 if user is None else 403,
            code="metrics",
            detail="Metrics tell about every project: they need a token of an administrator.",
            hint="Set 'authorization: {credentials: gantry_...}' in Prometheus's scrape_config.",
        )
        answer.headers["WWW-Authenticate"] = 'Bearer realm="gantry"'
        return answer
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    registry = CollectorRegistry()
    registry.register(cast(Collector, Database()))
    return HttpResponse(encode(registry), content_type=content_type)


class Database:
    """A collector (prometheus_client.registry.Collector) that asks the database."""

    def collect(self) -> Iterator[Metric]:
        """A handful of queries, each of which counts on the database's side."""
        yield InfoMetricFamily("gantry", "This installation.", {"version": __version__})
        yield from _pipelines()
        yield from _deployments()
        yield from _running()
        yield from _intake()

    def describe(self) -> Iterator[Metric]:
        """Nothing is asked of the database when the collector is registered."""
        return iter(())


def _pipelines() -> Iterator[Metric]:
    now = GaugeMetricFamily("gantry_pipelines", "Pipelines that wait or run now.", labels=["state"])
    _fill(now, Pipeline.objects.filter(state__in=BUSY), "state", BUSY)
    yield now
    ended = CounterMetricFamily(
        "gantry_pipelines_finished", "Pipelines that ended.", labels=["project", "state"]
    )
    rows = Pipeline.objects.filter(state__in=FINISHED).order_by()
    counts = list(rows.values_list("project", "state").annotate(Count("pk")))
    slugs = dict(Project.objects.values_list("pk", "slug"))  # a join is twice as slow
    for project, state, count in counts:
        if project in slugs:  # else it has just been deleted
            ended.add_metric([slugs[project], state], count)
    yield ended
    yield _oldest(
        "gantry_pipelines_oldest_queued_seconds",
        "For how long the pipeline has waited that waits longest; 0 when none does.",
        Pipeline.objects.filter(state=State.QUEUED),
    )
    yield _durations(
        "gantry_job_duration_seconds",
        "From a job's start to its end.",
        Job.objects.filter(finished_at__isnull=False, started_at__isnull=False),
        "kind",
    )


def _deployments() -> Iterator[Metric]:
    now = GaugeMetricFamily(
        "gantry_deployments", "Deployments that wait or run now.", labels=["state"]
    )
    _fill(now, Deployment.objects.filter(state__in=WAITING), "state", WAITING)
    yield now
    yield _durations(
        "gantry_deployment_duration_seconds",
        "From a deployment's start to its end, the stability window included.",
        Deployment.objects.filter(state__in=ENDED, started_at__isnull=False),
        "state",
    )
    stopped = Stop.objects.filter(ended_at=None).count()
    yield GaugeMetricFamily("gantry_line_stops", "Stops of the line that hold.", value=stopped)


def _running() -> Iterator[Metric]:
    names = ["project", "environment", "host", "release"]
    healthy = GaugeMetricFamily(
        "gantry_running_healthy", "1 if what serves an environment is healthy.", labels=names
    )
    drifted = GaugeMetricFamily(
        "gantry_running_drifted", "1 if what runs is not what was put there.", labels=names
    )
    digests = InfoMetricFamily("gantry_running", "What serves an environment.", labels=names)
    rows = Running.objects.values_list(
        "environment__project__slug", "environment__name", "host__name", "release__number",
        "release__commit", "digest", "healthy", "drift",
    )  # fmt: skip
    for slug, name, host, number, commit, digest, well, drift in rows:
        values = [slug, name, host, f"v{number}"]
        healthy.add_metric(values, well)
        drifted.add_metric(values, bool(drift))
        digests.add_metric(values, {"digest": digest, "commit": commit})
    yield from (healthy, drifted, digests)


def _intake() -> Iterator[Metric]:
    deliveries = CounterMetricFamily(
        "gantry_deliveries", "Webhooks and pushes, by their verdict.", labels=["forge", "verdict"]
    )
    rows = Delivery.objects.order_by().values_list("forge", "verdict").annotate(Count("pk"))
    for forge, verdict, count in rows:
        deliveries.add_metric([forge, verdict], count)
    yield deliveries
    yield _oldest(
        "gantry_outbox_oldest_seconds",
        "Age of the oldest promise that no worker has claimed; 0 when there is none.",
        OutboxEntry.objects.all(),
    )
    check = AuditCheck.objects.first()
    yield GaugeMetricFamily(
        "gantry_audit_log_intact",
        "0 if the audit log was found changed at the last check.",
        value=0 if check and check.problem else 1,
    )


def _fill(
    family: GaugeMetricFamily, rows: QuerySet[Any], field: str, values: tuple[str, ...]
) -> None:
    """One sample for each of ``values``, also of those that no row has: a graph has no gaps."""
    found = dict(rows.order_by().values_list(field).annotate(Count("pk")))
    for value in values:
        family.add_metric([str(value)], found.get(value, 0))


def _oldest(name: str, text: str, rows: QuerySet[Any]) -> GaugeMetricFamily:
    first: datetime | None = rows.aggregate(first=Min("created_at"))["first"]
    age = (timezone.now() - first).total_seconds() if first else 0
    return GaugeMetricFamily(name, text, value=max(age, 0))


def _durations(name: str, text: str, rows: QuerySet[Any, Any], label: str) -> SummaryMetricFamily:
    """Count and sum of what took from ``started_at`` to ``finished_at``, by ``label``."""
    family = SummaryMetricFamily(name, text, labels=[label])
    took = Sum(Seconds("finished_at", "started_at"))
    for value, count, total in rows.order_by().values_list(label).annotate(Count("pk"), took=took):
        family.add_metric([value], count_value=count, sum_value=total)
    return family


class Seconds(Func):
    """Seconds between two moments, by the database's own functions: Django's difference is a call
    of Python for each row in SQLite, a third of a second for 60,000 jobs."""

    output_field = FloatField()
    arg_joiner = " - "
    template = "EXTRACT(EPOCH FROM (%(expressions)s))"

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        days = [Func(one, function="julianday") for one in self.get_source_expressions()]
        copy = self.copy()
        copy.set_source_expressions(days)
        return copy.as_sql(compiler, connection, template="((%(expressions)s) * 86400.0)")
