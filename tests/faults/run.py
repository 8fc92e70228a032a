"""One run: repositories, moves, webhooks, faults; then the reckoning."""

from __future__ import annotations

import math
import os
import random
import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.e2e.service import wait_for
from tests.faults.chaos import Chaos
from tests.faults.forge import Answers, Repository, make_repository, tell, webhooks
from tests.faults.holdings import Holdings, growth, take
from tests.faults.installation import Installation, installation
from tests.faults.verdict import Logs, Verdict, is_settled, judge, read_logs


@dataclass(frozen=True)
class Plan:
    deliveries: int = 5000
    repositories: int = 20
    branches: int = 3
    steps: int = 5
    per_second: float = 20.0
    pause: float = 6.0  # seconds between kills
    kill_first: tuple[str, ...] = ()
    outage: float = 60.0  # seconds for which Redis hangs at the end; 0: not at all
    calm: bool = False  # nothing is killed, and what is held is measured
    lease: int = 20  # seconds until a worker counts as dead
    settle: float = 1800.0  # seconds for what is queued to be built
    seed: int = 1
    postgresql: bool = False  # instead of SQLite; it crashes now and then, too


@dataclass
class Outcome:
    began: float
    answers: Answers
    chaos: Chaos
    verdict: Verdict = field(default_factory=Verdict)
    pipelines: int = 0
    double_pushes: int = 0
    logs: Logs = field(default_factory=Logs)
    restart: float | None = None  # seconds from Redis's return to the start of a build
    slowest_in_outage: float = 0.0
    held: list[Holdings] = field(default_factory=list)  # after the first builds, and after all
    left_behind: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # of each part of the run

    def ended(self, part: str) -> None:
        """``part`` has taken what passed since the part before it."""
        self.seconds[part] = time.monotonic() - self.began - sum(self.seconds.values())


def carry_out(plan: Plan) -> Outcome:
    """Raises AssertionError when it does not come to rest; judges nothing else."""
    dice, answers, began = random.Random(plan.seed), Answers(), time.monotonic()
    settings = {"GANTRY_LEASE_SECONDS": str(plan.lease)}
    with installation(postgresql=plan.postgresql, **settings) as service:
        pause = math.inf if plan.calm else plan.pause
        chaos = Chaos(service, dice, pause, list(plan.kill_first), stopped=plan.lease + 10)
        outcome = Outcome(began, answers, chaos)
        repositories = [
            make_repository(service, f"repo-{number}", plan.branches, plan.steps + 1)
            for number in range(plan.repositories)
        ]
        outcome.ended("up")
        with chaos:
            _tell_all(service, repositories, plan, outcome)
            outcome.ended("told")
            wait_for(lambda: not chaos.order or None, 60)
        chaos.settle()
        outcome.ended("killed")
        wait_for(lambda: is_settled(service) or None, plan.settle)
        outcome.ended("settled")
        heads = {(repo.slug, ref): shas[plan.steps - 1] for repo in repositories
                 for ref, shas in repo.shas.items()}  # fmt: skip
        outcome.verdict = judge(service, answers.taken, heads)
        if plan.outage:
            _without_redis(service, repositories[0], plan, outcome)
        _reckon(service, outcome)
        outcome.ended("looked at without Redis")
        service.supervisor.send_signal(signal.SIGTERM)
        service.supervisor.wait(60)
        outcome.left_behind = service.left_behind()
    outcome.ended("stopped")
    return outcome


def _tell_all(
    service: Installation, repositories: Sequence[Repository], plan: Plan, outcome: Outcome
) -> None:
    secrets = {repo.slug: repo.secret for repo in repositories}
    for step in range(plan.steps):
        for repo in repositories:
            repo.move(step)
        told = webhooks(repositories, step, plan.deliveries // plan.steps, outcome.chaos.dice)
        tell(service, secrets, told, outcome.answers, per_second=plan.per_second)
        if plan.calm and step in {0, plan.steps - 1}:
            wait_for(lambda: is_settled(service) or None, plan.settle)
            outcome.held.append(take(service))


def _reckon(service: Installation, outcome: Outcome) -> None:
    outcome.logs = read_logs(service)
    outcome.pipelines = service.rows("SELECT count(*) FROM pipelines_pipeline")[0][0]
    outcome.double_pushes = sum(count - 1 for count in service.manifests().values())


def _without_redis(service: Installation, repo: Repository, plan: Plan, outcome: Outcome) -> None:
    """Redis hangs, webhooks come, and a build starts once it is back."""
    [redis] = service.processes()["redis"]
    os.kill(redis, signal.SIGSTOP)
    try:
        repo.move(plan.steps)
        told = webhooks([repo], plan.steps, plan.branches, random.Random(plan.seed))
        answers = Answers()
        tell(service, {repo.slug: repo.secret}, told, answers, per_second=5)
        time.sleep(plan.outage)
    finally:
        os.kill(redis, signal.SIGCONT)
    back = time.monotonic()
    assert (answers.refused, answers.unanswered) == (0, 0)
    outcome.slowest_in_outage = max(answers.seconds)
    begun = "SELECT count(*) FROM pipelines_pipeline WHERE state != 'queued' AND \"commit\" = ?"
    shas = [shas[plan.steps] for shas in repo.shas.values()]
    wait_for(lambda: any(service.rows(begun, sha)[0][0] for sha in shas) or None, 60)
    outcome.restart = time.monotonic() - back
    wait_for(lambda: is_settled(service) or None, plan.settle)


def table(outcome: Outcome) -> str:
    """SECURITY's figures, as Markdown."""
    answers, chaos, verdict = outcome.answers, outcome.chaos, outcome.verdict
    times = sorted(answers.seconds)
    good = sum(count for end, count in verdict.ends.items() if end != "WRONG")
    total = max(1, sum(verdict.ends.values()))
    rows = [
        ("deliveries sent, answered 2xx, not answered, refused",
         f"{answers.sent}, {len(times)}, {answers.unanswered}, {answers.refused}", ""),
        ("kills", ", ".join(f"{name} {count}" for name, count in sorted(chaos.kills.items())), ""),
        ("acknowledged commits that ended as they should", f"{100 * good / total:.3f} % of {total}",
         "100.000 %"),
        ("how they ended", ", ".join(f"{end} {n}" for end, n in verdict.ends.most_common()), ""),
        ("pipelines", str(outcome.pipelines), ""),
        ("log lines lost or told twice, of those that steps wrote",
         f"{outcome.logs.wrong} of {outcome.logs.lines}", "0"),
        ("double image pushes", str(outcome.double_pushes), "0"),
        ("hook answer p50, p99, max",
         f"{_at(times, 50)} ms, {_at(times, 99)} ms, {_at(times, 100)} ms",
         "30 ms, 500 ms, 5 s"),
        ("dead worker noticed", _most(chaos.noticed), "30 s"),
        ("its pipeline running again or ended", _most(chaos.again), "60 s"),
        ("sandbox processes after a worker's kill -9", _most(chaos.survived), "5 s"),
        ("left after the service has stopped", str(len(outcome.left_behind)), "0"),
    ]  # fmt: skip
    if outcome.restart is not None:
        slowest = 1000 * outcome.slowest_in_outage
        rows.append(("Redis hangs: slowest answer", f"{slowest:.0f} ms", "1 s"))
        rows.append(("Redis is back: a build starts", f"{outcome.restart:.1f} s", "15 s"))
    if len(outcome.held) == 2:
        rows += growth(*outcome.held)
    parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in outcome.seconds.items())
    rows.append((f"the run: {parts}", f"{sum(outcome.seconds.values()):.0f} s", ""))
    lines = [f"| {name} | {figure} | {aim} |" for name, figure, aim in rows]
    return "\n".join(["| figure | measured | aim |", "|---|---|---|", *lines])


def _at(times: list[float], percent: int) -> str:
    if len(times) < 2:
        return "-"
    cut = times[-1] if percent == 100 else statistics.quantiles(times, n=100)[percent - 1]
    return f"{1000 * cut:.0f}"


def _most(seconds: list[float]) -> str:
    return f"at most {max(seconds):.1f} s of {len(seconds)}" if seconds else "never seen"
