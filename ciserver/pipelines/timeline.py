"""What the pipeline page shows of jobs, steps, receipts and tests: rows made ready to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.conf import settings
from django.db.models import Case, Count, QuerySet, Value, When
from django.utils import timezone

from ciserver.pipelines.case_history import failed_before
from ciserver.pipelines.models import Job, JobKind, Pipeline, State, Step, TestCase
from ciserver.pipelines.sparkline import Spark, memory

STOPPED = "stopped"
GAUGE_WIDTH = 60  # where the limit is drawn; the gauge goes on to 64
STRIP_WIDTH = 1000
MAX_CASES = 200
_MOST_NAMES = 900  # of one question to a database
_BAD = (TestCase.Outcome.FAILED, TestCase.Outcome.ERROR)


@dataclass(frozen=True, slots=True)
class Gauge:
    """One figure of a receipt against its limit. ``width`` is in the gauge's own units."""

    name: str
    kind: str  # how to print it: "size", "duration" or "cores"
    value: float
    limit: float | None

    @property
    def ratio(self) -> float | None:
        return self.value / self.limit if self.limit else None

    @property
    def width(self) -> float:
        ratio = self.ratio or 0.0
        return round(min(max(ratio * GAUGE_WIDTH, 1.0), 64.0), 1) if self.value else 0.0

    @property
    def hot(self) -> bool:
        return (self.ratio or 0) >= 0.9


@dataclass(frozen=True, slots=True)
class StepView:
    """A step and its anchor. ``bar`` is its length against the job's longest, 0 to 100."""

    step: Step
    anchor: str
    look: str
    bar: float
    gauges: tuple[Gauge, ...] = ()
    spark: Spark | None = None

    @property
    def ended(self) -> str:
        """How a step ended that did not simply succeed: ``exit 2``, ``oom``."""
        receipt = self.step.receipt or {}
        outcome = receipt.get("outcome", "exited")
        code = receipt.get("exit_code", 0)
        if outcome == STOPPED:  # a service, whose work was done
            return ""
        if outcome != "exited":
            return str(outcome)
        return f"exit {code}" if code else ""

    @property
    def kept_until(self) -> datetime | None:
        """Until when what it left can be looked at; None when nothing is kept any more."""
        until = datetime.fromtimestamp((self.step.receipt or {}).get("kept_until") or 0, UTC)
        return until if until > timezone.now() else None


@dataclass(frozen=True, slots=True)
class Cases:
    """A job's tests, failures first."""

    rows: list[TestCase] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def bad(self) -> list[TestCase]:
        return [case for case in self.rows if case.outcome in _BAD]

    @property
    def others(self) -> list[TestCase]:
        return [case for case in self.rows if case.outcome not in _BAD]

    @property
    def hidden(self) -> int:
        return self.total - len(self.rows)

    @property
    def passed(self) -> int:
        return self.counts.get(TestCase.Outcome.PASSED, 0)

    @property
    def failed(self) -> int:
        return sum(self.counts.get(outcome, 0) for outcome in _BAD)


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with its steps and tests. ``start`` and ``width`` place its bar, in thousandths;
    from ``ready`` on, when what it needs had passed, to ``start`` it waited for its turn."""

    job: Job
    anchor: str
    ready: float
    start: float
    width: float
    steps: list[StepView]
    cases: Cases

    @property
    def waited(self) -> float:
        return round(self.start - self.ready, 1)

    @property
    def used_network(self) -> bool:
        return any(
            (view.step.receipt or {}).get(key)
            for view in self.receipts
            for key in ("received_bytes", "sent_bytes")
        )

    @property
    def receipts(self) -> list[StepView]:
        return [view for view in self.steps if view.gauges]

    @property
    def cached(self) -> int:
        return sum(view.step.cached for view in self.steps)

    @property
    def shown_steps(self) -> list[StepView]:
        return [view for view in self.steps if view.step.state != State.QUEUED]


@dataclass(frozen=True, slots=True)
class PipelineView:
    """A pipeline, its jobs in order, and which of them the reader should see first."""

    pipeline: Pipeline
    jobs: list[JobView]

    @property
    def newest(self) -> list[JobView]:
        """The jobs of the last run, once it has any."""
        return [view for view in self.jobs if view.job.run == self.pipeline.run] or self.jobs

    @property
    def focus(self) -> JobView | None:
        """The failed job, else the running one, else the last that ran, else the first."""
        for states in ((State.FAILED,), (State.RUNNING,)):
            for view in self.newest:
                if view.job.state in states:
                    return view
        done = [view for view in self.newest if view.job.state == State.PASSED]
        tested = [view for view in done if view.job.kind == JobKind.TEST]
        ran = tested or done or self.jobs
        return ran[-1] if ran else None

    @property
    def blame(self) -> JobView | None:
        """The first job that failed."""
        return next((view for view in self.newest if view.job.state == State.FAILED), None)

    @property
    def doing(self) -> StepView | None:
        """The step that runs now."""
        running = (view for job in self.jobs for view in job.steps if view.look == State.RUNNING)
        return next(running, None)

    def job_named(self, name: str) -> JobView | None:
        return next((view for view in reversed(self.jobs) if view.job.name == name), None)


def view_of(pipeline: Pipeline) -> PipelineView:
    """Everything the page draws, in three queries."""
    jobs = list(pipeline.jobs.prefetch_related("steps", "artifacts"))
    for job in jobs:
        job.pipeline = pipeline
    cases = _cases(pipeline, jobs)
    start, span = _span(pipeline)
    ready = {job.pk: _ready(job, jobs, start) for job in jobs}
    views = [_job_view(job, cases.get(job.pk, Cases()), start, span, ready[job.pk]) for job in jobs]
    return PipelineView(pipeline, views)


def _ready(job: Job, jobs: list[Job], start: datetime | None) -> datetime | None:
    """When the last of what ``job`` needs had ended; the pipeline's start, if it needs nothing."""
    needed = [one for one in jobs if one.run == job.run and one.name in job.needs]
    ends = [one.finished_at for one in needed if one.finished_at]
    return max(ends, default=start)


def _job_view(
    job: Job, cases: Cases, start: datetime | None, span: float, ready: datetime | None
) -> JobView:
    anchor = f"j{job.position}"
    steps = list(job.steps.all())
    longest = max((step.seconds or 0 for step in steps), default=0) or 1
    views = [_step_view(step, anchor, longest, _limits_of_step(job, step)) for step in steps]
    left = width = since = 0.0
    if start and job.started_at:
        left = min(max((job.started_at - start).total_seconds() / span, 0), 1) * STRIP_WIDTH
        width = min(max((job.seconds or 0) / span, 0.008), 1) * STRIP_WIDTH
        left = min(left, STRIP_WIDTH - 8)
        if ready:
            since = min(max((ready - start).total_seconds() / span, 0) * STRIP_WIDTH, left)
    return JobView(job, anchor, round(since, 1), round(left, 1), round(width, 1), views, cases)


def _step_view(step: Step, job: str, longest: float, limits: dict[str, Any]) -> StepView:
    look = "cached" if step.cached and step.state == State.PASSED else step.state
    bar = round((step.seconds or 0) / longest * 100, 1)
    spark = memory((step.receipt or {}).get("samples", ()), limits.get("memory"))
    gauges = _gauges(step.receipt, limits)
    return StepView(step, f"{job}-s{step.position}", look, bar, gauges, spark)


def _limits_of_step(job: Job, step: Step) -> dict[str, Any]:
    """A service's step names it as its stage."""
    services = job.options.get("services", {})
    return dict(services.get(step.stage, {}).get("limits") or _limits(job))


def _gauges(receipt: dict[str, Any] | None, limits: dict[str, Any]) -> tuple[Gauge, ...]:
    if not receipt:
        return ()
    wall = float(receipt.get("wall", 0))
    cpu = float(receipt.get("user", 0)) + float(receipt.get("system", 0))
    return (
        Gauge("memory", "size", float(receipt.get("peak_memory", 0)), limits.get("memory")),
        Gauge("cpu", "cores", cpu / wall if wall else 0.0, limits.get("cpus")),
        Gauge("wall", "duration", wall, limits.get("timeout")),
    )


def _limits(job: Job) -> dict[str, Any]:
    """The limits a job's steps ran under, as far as its row or the settings tell."""
    if "limits" in job.options:
        return dict(job.options["limits"])
    if job.kind != JobKind.BUILD:
        return {}
    config = settings.GANTRY
    return {
        "memory": config.build_memory,
        "cpus": config.build_cpus,
        "timeout": config.build_timeout,
    }


def _cases(pipeline: Pipeline, jobs: Sequence[Job]) -> dict[int, Cases]:
    """Tests by job: counts of all, rows of the first 200 with failures first, then flaky ones.

    Of a job that tried again, those of its last try.
    """
    found: dict[int, Cases] = {}
    all_cases = TestCase.objects.filter(job__in=jobs, superseded=False)
    counts = all_cases.order_by().values_list("job_id", "outcome").annotate(n=Count("pk"))
    for pk, outcome, count in counts:
        found.setdefault(pk, Cases()).counts[outcome] = count
    failed = failed_before(pipeline) if found else {}
    for job in jobs:
        if job.pk in found:
            rows = all_cases.filter(job=job)
            found[job.pk].rows.extend(_first_rows(rows, failed.get(job.name, {})))
    return found


def _first_rows(
    rows: QuerySet[TestCase], failed: Mapping[tuple[str, str], int]
) -> QuerySet[TestCase]:
    """``failed`` as ``case_history.failed_before`` has it of this job."""
    flaky = _flaky(rows, failed) if failed else []
    told = rows.annotate(
        failed_before=Case(When(pk__in=flaky, then=Value(True)), default=Value(False)),
        worst=Case(When(outcome__in=_BAD, then=Value(0)), default=Value(1)),
    )
    return told.order_by("worst", "-failed_before", "pk")[:MAX_CASES]


def _flaky(rows: QuerySet[TestCase], failed: Mapping[tuple[str, str], int]) -> list[int]:
    first = rows.order_by("pk").values_list("pk", flat=True)[0]
    earlier = {key for key, pk in failed.items() if pk < first}
    names = {name for _, name in islice(earlier, _MOST_NAMES)}
    again = rows.exclude(outcome__in=_BAD).filter(name__in=names).order_by("pk")
    found = again.values_list("pk", "suite", "name")
    return [pk for pk, *key in found if tuple(key) in earlier][:MAX_CASES]


def _span(pipeline: Pipeline) -> tuple[datetime | None, float]:
    start = pipeline.started_at
    if start is None:
        return None, 1.0
    end = pipeline.finished_at or timezone.now()
    return start, max((end - start).total_seconds(), 0.001)
