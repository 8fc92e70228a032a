"""What became of everything that was acknowledged."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.faults.forge import LINES
from tests.faults.installation import Installation

PIPELINES = """
SELECT project.slug, pipeline.ref, pipeline."commit", pipeline.state, pipeline.reason
FROM pipelines_pipeline pipeline JOIN projects_project project ON project.id = pipeline.project_id
ORDER BY pipeline.id
"""
DELIVERIES = """
SELECT project.slug, delivery.ref, delivery.sha, delivery.verdict
FROM webhooks_delivery delivery JOIN projects_project project ON project.id = delivery.project_id
"""
UNFINISHED = "SELECT count(*) FROM pipelines_pipeline WHERE state IN ('queued', 'running')"
PROMISED = (
    "SELECT count(*) FROM lib_outboxentry WHERE topic IN ('delivery.accepted', 'pipeline.queued')"
)

BUILDS = "SELECT id FROM pipelines_job WHERE kind = 'build' AND state = 'passed'"

Key = tuple[str, str, str]  # project, ref, sha


@dataclass
class Verdict:
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)  # of pipelines that failed


def is_settled(service: Installation) -> bool:
    """Nothing is promised, queued or running any more."""
    return service.rows(UNFINISHED)[0][0] == 0 and service.rows(PROMISED)[0][0] == 0


def judge(
    service: Installation, taken: Iterable[Key], heads: dict[tuple[str, str], str]
) -> Verdict:
    """Of each commit that was acknowledged: one finished pipeline, a visible failure, superseded
    by a later one, or stale because its branch had moved on. ``heads`` are the branches' last."""
    found = Verdict()
    pipelines: dict[Key, list[tuple[str, str]]] = defaultdict(list)
    last: dict[tuple[str, str], str] = {}
    for slug, ref, commit, state, reason in service.rows(PIPELINES):
        pipelines[slug, ref, commit].append((state, reason))
        last[slug, ref] = commit
        if state == "failed":
            found.reasons[reason] += 1
    verdicts: dict[Key, set[str]] = defaultdict(set)
    for slug, ref, sha, verdict in service.rows(DELIVERIES):
        verdicts[slug, ref, sha].add(verdict)
    for key in taken:
        end = _end_of(pipelines[key], verdicts[key], is_head=heads.get(key[:2]) == key[2])
        found.ends[end or "WRONG"] += 1
        if not end:
            found.wrong.append(f"{key}: {pipelines[key]} {verdicts[key]}")
    for (slug, ref), sha in heads.items():
        if (slug, ref, sha) in set(taken) and last.get((slug, ref)) != sha:
            found.wrong.append(f"{slug} {ref}: the last pipeline is not of the head")
    return found


@dataclass
class Logs:
    lines: int = 0  # that the steps of builds that passed wrote
    wrong: int = 0  # of them: missing, or there twice


def read_logs(service: Installation) -> Logs:
    """Whether each numbered line is in the log of its build once. A step that a dead worker's
    attempt had finished comes from the cache, and writes none."""
    found = Logs()
    with service.api() as api:
        for (job,) in service.rows(BUILDS):
            lines = api.get(f"jobs/{job}/log/").raise_for_status().text.splitlines()
            numbers = Counter(line for line in lines if line.isdecimal())
            if numbers:
                found.lines += LINES
                found.wrong += sum(numbers[str(n)] != 1 for n in range(1, LINES + 1))
    return found


def _end_of(built: list[tuple[str, str]], verdicts: set[str], *, is_head: bool) -> str:
    """How it ended, in a word; empty when it should not have."""
    states = Counter(state for state, _ in built)
    if states["passed"] == 1 and len(built) == 1:
        return "passed"
    if states["passed"] > 1 or states["queued"] or states["running"]:
        return ""
    if built and all("superseded" in reason for state, reason in built if state == "cancelled"):
        if states["passed"] == 0 and states["failed"] == 0:
            return "superseded"
        if states["failed"] == 1 and all(reason for _, reason in built):
            return "failed, with the reason"
    if not built and "failed" in verdicts:
        return "failed, with the reason"
    if not built and "stale" in verdicts and not is_head:
        return "stale"
    return ""
