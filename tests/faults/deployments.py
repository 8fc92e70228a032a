"""Workers killed at any moment of a deployment, and whether what is shown is what serves.

    sudo .venv/bin/python -m tests.faults.deployments [--kills 200] [--lanes 4] [--seed 1]

Some projects on this machine get release after release, each by a worker that is killed by -9 at a
random moment of it. Rounds as the scheduler makes them go on, with the lease that the service has.
Of each kill it is told how long it took until the record was the truth again: the deployment has
ended, and what serves is what the record names. Each place is asked 20 times a second meanwhile.
Ends with 1 when one took longer than a minute, more than one request in a thousand was lost, or
something is left behind.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import tests.home  # a home and a database of its own

os.environ["DJANGO_SETTINGS_MODULE"] = "ciserver.settings"
DATABASE = tests.home.HOME / "db" / "kills.sqlite3"
os.environ["GANTRY_DATABASE_URL"] = f"sqlite:///{DATABASE}"
import django

django.setup()

import httpx
from django.core.management import call_command

from ciserver.lib.models import OutboxEntry
from ciserver.pipelines.models import Pipeline, State
from ciserver.projects.models import Project
from ciserver.releases import drift, naming, queue, restoring, runner, services
from ciserver.releases.models import Deployment, Environment, Host, Running
from ciserver.releases.targets.local import LocalTarget
from tests.ciserver.releases import conftest
from tests.ciserver.releases.deploying import Doomed
from tests.ciserver.releases.test_deploy import Probe

KILLED = -9
WITHIN = 60.0  # seconds
LOST = 0.001  # of all requests
PAUSE = 2.0  # seconds between the scheduler's rounds
TIDY = 60.0  # between two looks at all hosts


@dataclass
class Lane:
    """A project with one environment, and the deployment that is under way there."""

    environment: Environment
    registry: conftest.Registry
    doomed: Doomed  # whose workers do its deployments: those of several go on at once
    deployment: Deployment | None = None
    killed_at: float = 0.0
    count: int = 0
    probe: Probe = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.environment.port}/"
        self.probe = Probe(self.url)

    def ask(self) -> Deployment:
        """A new release is asked for."""
        self.count += 1
        project = self.environment.project
        digest = self.registry.push(project.slug, page=f"Change {self.count}")
        pipeline = Pipeline.objects.create(
            project=project,
            number=self.count,
            commit=f"{self.count:040x}",
            ref="refs/heads/main",
            title=f"Change {self.count}",
            state=State.PASSED,
            repository=f"{self.registry.address}/{project.slug}",
            digest=digest,
        )
        self.deployment = services.make_release(pipeline).deployments.get()
        return self.deployment

    def is_true(self) -> bool:
        """The deployment has ended, and what serves is what the record names."""
        assert self.deployment is not None
        self.deployment.refresh_from_db()
        shown = Running.objects.get(environment=self.environment).release.title
        served = httpx.get(self.url, timeout=5, trust_env=False).text
        return self.deployment.state == "succeeded" and shown == served == f"Change {self.count}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    area = Path(tempfile.mkdtemp(prefix="gantry-kills-"))
    try:
        with ExitStack() as stack:
            address = f"127.0.0.1:{conftest.free_port()}"
            stack.enter_context(conftest._serving(area, address, {}))
            stack.enter_context(conftest.caddy(area))
            call_command("migrate", verbosity=0)
            registry = conftest.Registry(address)
            lanes = []
            for number in range(asked.lanes):
                doomed = stack.enter_context(Doomed(str(DATABASE), str(tests.home.HOME)))
                lanes.append(_lane(number, registry, doomed))
            stack.callback(_clear, lanes)
            return _run(lanes, asked.kills, random.Random(asked.seed))
    finally:
        shutil.rmtree(area, ignore_errors=True)
        tests.home.pytest_unconfigure()


def _lane(number: int, registry: conftest.Registry, doomed: Doomed) -> Lane:
    project = Project.objects.create(slug=f"kill{number}-{os.getpid()}")
    place = services.create_environment(project=project, name="qa", auto=True, stable_seconds=1)
    place.hosts.add(Host.objects.get_or_create(name="local")[0])
    return Lane(place, registry, doomed)


def _run(lanes: list[Lane], kills: int, chance: random.Random) -> int:
    longest = 0.0
    for lane in lanes:
        began = time.monotonic()
        lane.doomed.deploy(lane.ask().pk, "none")
        longest = max(longest, time.monotonic() - began)
        assert lane.is_true()
    took: list[float] = []
    at: dict[str, int] = {}
    with ExitStack() as stack:
        for lane in lanes:
            stack.enter_context(lane.probe)
        while len(took) < kills:
            hit = [lane for lane in lanes if _kill(lane, chance.uniform(0, longest), at)]
            took += _until_true(hit)
            print(
                f"{len(took)} killed, the longest untruth {max(took, default=0):.1f} s", flush=True
            )
    return _report(lanes, took, at)


def _kill(lane: Lane, after: float, at: dict[str, int]) -> bool:
    """Whether the worker was killed before it was done; where, is counted in ``at``."""
    deployment = lane.ask()
    code = lane.doomed.deploy(deployment.pk, f"{after:.3f}")
    lane.killed_at = time.monotonic()
    if code != KILLED or lane.is_true():
        return False
    last = deployment.steps.last()
    done = "after" if last and last.finished_at else "in"
    where = f"{done} {last.name}" if last else "before the first step"
    at[where] = at.get(where, 0) + 1
    return True


def _told(lane: Lane) -> str:
    """What the record says of a deployment that did not end as it should."""
    assert lane.deployment is not None
    row = Deployment.objects.get(pk=lane.deployment.pk)
    steps = ", ".join(f"{one.name} {one.state}" for one in row.steps.order_by("pk"))
    return f"{row}, attempt {row.attempt}, is {row.state} ({row.reason}): {steps}"


def _until_true(hit: list[Lane]) -> list[float]:
    """Seconds from each kill to the truth. The scheduler's rounds go on meanwhile."""
    took, tidied = [], time.monotonic()
    while hit:
        time.sleep(PAUSE)
        runner.recover_deployments()
        promised = set(
            OutboxEntry.objects.filter(topic=queue.TOPIC).values_list("object_id", flat=True)
        )
        with ThreadPoolExecutor(len(hit)) as pool:
            for lane in hit:
                if lane.deployment and lane.deployment.pk in promised:
                    pool.submit(lane.doomed.deploy, lane.deployment.pk, "none")
        if time.monotonic() - tidied > TIDY:
            tidied = time.monotonic()
            restoring.restore_routes()
        for lane in [one for one in hit if one.is_true()]:
            hit.remove(lane)
            took.append(time.monotonic() - lane.killed_at)
        if any(time.monotonic() - one.killed_at > 3 * WITHIN for one in hit):
            raise SystemExit("never true again: " + "; ".join(map(_told, hit)))
    return took


def _report(lanes: list[Lane], took: list[float], at: dict[str, int]) -> int:
    restoring.restore_routes()
    drift.look()
    left = LocalTarget.here(tests.home.HOME / "run").containers(
        {"installation": naming.installation()}
    )
    drifts = [row.drift for row in Running.objects.exclude(drift="")]
    answers = [answer for lane in lanes for answer in lane.probe.answers]
    lost = [answer for lane in lanes for answer in lane.probe.failures]
    late = [seconds for seconds in took if seconds > WITHIN]
    print("killed:", ", ".join(f"{count}x {name}" for name, count in sorted(at.items())))
    print(f"until the record was true: median {statistics.median(took):.1f} s, longest"
          f" {max(took):.1f} s, {len(late)} of {len(took)} later than {WITHIN:g} s")  # fmt: skip
    print(f"requests: {len(answers)}, lost {len(lost)}: {sorted(set(lost))[:5]}")
    print(f"containers: {len(left)} for {len(lanes)} environments; drift: {drifts or 'none'}")
    good = not late and len(lost) <= LOST * len(answers) and len(left) == len(lanes) and not drifts
    print("PASS" if good else "FAIL")
    return 0 if good else 1


def _clear(lanes: list[Lane]) -> None:
    here = LocalTarget.here(tests.home.HOME / "run")
    for container in here.containers({"installation": naming.installation()}):
        here.remove(container, grace=0)
    for lane in lanes:
        here.proxy.forget(naming.server_name(lane.environment))


if __name__ == "__main__":
    sys.exit(main())
