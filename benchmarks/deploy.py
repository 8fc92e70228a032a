"""From a promotion that is asked for to the new version serving, on hosts reached by ssh.

    sudo .venv/bin/python benchmarks/deploy.py [--rounds 5]

Hosts are machines of their own on this one (see tests/machines.py): a real sshd, podman and Caddy
each. The image's changed layer has 1 MB. Three figures:

1. seconds from the promotion to the first answer of the new version, less the health gate's own
   time, beside ``ssh host 'podman pull && podman run'`` by hand: a connection of its own with the
   registry's port forwarded, since the host reaches it in no other way. Rounds take turns.
2. bytes that ssh sent to the host beyond the changed layer.
3. four hosts at once beside one. All four machines share this one's cores, on which podman spends
   most of the time, so the same by hand on four at once stands beside it; and again with a share of
   a core for each machine, that no other machine of the four takes from it: a quarter, so that of
   two cores one is left for the worker, whose machine would be another one, too.

The worker's own code runs in this process; what a queue adds to it is not in here.

The connection is one that was kept, as it is in a service that looks at each host every minute;
by hand it is made, which takes 170 ms. Where the time goes on one host, in ms beside what it
takes by hand: ``podman pull`` 220 (200), with the environment's network looked at beside it (nft
10); ``podman run`` 270 (250); Caddy's new route 15; each of the five steps written down before and
after, its end with the beginning of the next, so that a power cut forgets none: 4 a commit, for
which hosts take turns. Four hosts are four podmans on two cores (1.5 s of CPU until they serve) and
130 ms of the worker's own Python for each: it speaks to ssh's master itself, and starts nothing.
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

import tests.home  # a home and a database of its own

os.environ["DJANGO_SETTINGS_MODULE"] = "ciserver.settings"
os.environ["GANTRY_DATABASE_URL"] = f"sqlite:///{tests.home.HOME}/db/bench.sqlite3"
import django

django.setup()

import httpx
from django.core.management import call_command

from ciserver.accounts.models import User
from ciserver.pipelines.models import Pipeline, State
from ciserver.projects.models import Project
from ciserver.releases import fleet, runner, services
from ciserver.releases.models import Deployment, Environment, Host
from tests.ciserver.releases import conftest
from tests.machines import Machine, machines

HOSTS = 4
CHANGED = 1_000_000  # bytes of the layer that differs, compressed
HEADERS = 14 + 20 + 32  # of Ethernet, IP, and TCP with time stamps; large packets count once
LAYER_ALLOWANCE = 20_000  # bytes
HAND = "by hand: ssh 'podman pull && podman run'"
HANDS = "by hand, on four at once"
SHARE = 0.25  # of a core: four leave one of two to the worker
ONE, FOUR = f"one host with {SHARE} of a core", f"four hosts with {SHARE} of a core each"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    area = Path(tempfile.mkdtemp(prefix="gantry-bench-"))
    try:
        with ExitStack() as stack:
            address = f"127.0.0.1:{conftest.free_port()}"
            stack.enter_context(conftest._serving(area, address, {}))
            ships = stack.enter_context(machines(HOSTS))
            bench = Bench(conftest.Registry(address), ships)
            report(bench.measure(rounds))
    finally:
        shutil.rmtree(area, ignore_errors=True)
        tests.home.pytest_unconfigure()


class Bench:
    """A project whose environment ``prod`` is on some of the machines."""

    def __init__(self, registry: conftest.Registry, ships: list[Machine]) -> None:
        call_command("migrate", verbosity=0)
        self.registry, self.ships, self.count = registry, ships, 0
        self.admin = User.objects.create_superuser("admin", "admin@example.org", "x")
        self.project = Project.objects.create(slug="hello")
        self.prod = services.create_environment(project=self.project, name="prod")
        Environment.objects.update(stable_seconds=0)
        self.hosts = []
        for number, ship in enumerate(ships):
            host = fleet.add(user=self.admin, name=f"host-{number}", address=f"root@{ship.ip}")
            ship.allow(host.public_key)
            self.hosts.append(host)
        self.key = Path(tests.home.HOME / "by-hand")
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", self.key], check=True)
        for ship in ships:
            ship.allow(self.key.with_suffix(".pub").read_text().strip())

    def measure(self, rounds: int) -> dict[str, list[float]]:
        figures: dict[str, list[float]] = {}
        for number in range(rounds + 1):
            now = self.one() | self.many() | self.wire()
            now |= {HAND: self.by_hand(self.ships[:1]), HANDS: self.by_hand(self.ships)}
            with shares(self.ships):
                now |= {ONE: self.one()["one host"], FOUR: self.many()["four hosts at once"]}
            if number:  # the first one makes networks and starts Caddy
                for name, value in now.items():
                    figures.setdefault(name, []).append(value)
        return figures

    def one(self) -> dict[str, float]:
        served, gate = self.deploy(self.hosts[:1])
        return {"one host": served - gate, "its health gate": gate}

    def many(self) -> dict[str, float]:
        served, gate = self.deploy(self.hosts)
        return {"four hosts at once": served - gate}

    def wire(self) -> dict[str, float]:
        """Without a probe, whose own bytes would be counted."""
        before = self.sent()
        deployment = self.promote(self.hosts[:1])
        runner.deploy(deployment.pk)
        deployment.refresh_from_db()
        assert deployment.state == "succeeded", deployment.reason
        assert deployment.bytes_pulled is not None
        return {"bytes beyond the layer": self.sent() - before - deployment.bytes_pulled}

    def sent(self) -> int:
        """Bytes that ssh sent to the first host: what is on the wire less its headers."""
        device = Path(f"/sys/class/net/{self.ships[0].device}/statistics")
        packets = int((device / "tx_packets").read_text())
        return int((device / "tx_bytes").read_text()) - packets * HEADERS

    def deploy(self, hosts: list[Host]) -> tuple[float, float]:
        """Seconds until the new version answers on each of ``hosts``, and those of the gate."""
        deployment = self.promote(hosts)
        marker = f"release {self.count}"
        started = time.monotonic()
        seen: dict[str, float] = {}
        watchers = [
            threading.Thread(target=self.watch, args=(self.ship(host), marker, seen))
            for host in hosts
        ]
        for watcher in watchers:
            watcher.start()
        runner.deploy(deployment.pk)
        for watcher in watchers:
            watcher.join()
        deployment.refresh_from_db()
        assert deployment.state == "succeeded", deployment.reason
        checks = deployment.steps.filter(name="check")
        spent = [one.finished_at - one.started_at for one in checks if one.finished_at]
        return max(seen.values()) - started, max(spent, default=timedelta()).total_seconds()

    def watch(self, ship: Machine, marker: str, seen: dict[str, float]) -> None:
        url = f"http://{ship.ip}:{self.prod.port}/mark"
        deadline = time.monotonic() + 60
        with httpx.Client(trust_env=False, timeout=2) as client:
            while time.monotonic() < deadline:
                try:
                    if client.get(url).text == marker:
                        seen[ship.name] = time.monotonic()
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(0.01)
        seen[ship.name] = deadline

    def promote(self, hosts: list[Host]) -> Deployment:
        self.prod.hosts.set(hosts)
        Environment.objects.update(batch_size=len(hosts))
        release = services.make_release(self.pipeline(self.push()))
        return services.promote(release=release, environment=self.prod, user=self.admin)

    def push(self) -> str:
        self.count += 1
        page = base64.b64encode(os.urandom(CHANGED)).decode()
        command = conftest.SERVE.replace("trap", f"echo -n release {self.count} > /www/mark; trap")
        return self.registry.push("hello", page=page, command=command)

    def pipeline(self, digest: str) -> Pipeline:
        return Pipeline.objects.create(
            project=self.project,
            number=self.count,
            commit=f"{self.count:040x}",
            ref="refs/heads/main",
            title=f"Change {self.count}",
            state=State.PASSED,
            repository=f"{self.registry.address}/hello",
            digest=digest,
        )

    def by_hand(self, ships: list[Machine]) -> float:
        """Seconds of what somebody would type for each at once, under a deployment's limits."""
        image = f"127.0.0.1:5000/hello@{self.push()}"
        limits = "--memory 512m --cpus 1 --pids-limit 512 --cap-drop ALL --ulimit nofile=8192:8192"
        run = f"podman run --detach --name hand {limits} --ulimit nproc=4096:4096 --publish 81:8080"
        script = f"podman pull -q --tls-verify=false {image} && {run} {image}"
        words = ["-i", str(self.key), "-R", f"127.0.0.1:5000:{self.registry.address}"]
        words += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]

        def typed(ship: Machine) -> None:
            ssh = ["ssh", "-F", "none", *words, f"root@{ship.ip}", script]
            subprocess.run(ssh, check=True, capture_output=True)

        started = time.monotonic()
        with ThreadPoolExecutor(len(ships)) as pool:
            list(pool.map(typed, ships))
        took = time.monotonic() - started
        for ship in ships:
            ship.sh("podman rm --force --time 0 hand")
        return took

    def ship(self, host: Host) -> Machine:
        return self.ships[self.hosts.index(host)]


@contextmanager
def shares(ships: list[Machine]) -> Iterator[None]:
    """Let each machine have SHARE of a core, and no more, for the block (cgroup v1 or v2)."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    root = Path("/sys/fs/cgroup" if unified else "/sys/fs/cgroup/cpu")
    if unified:
        (root / "cgroup.subtree_control").write_text("+cpu")
    limited = {ship.name: root / f"bench-{ship.name}" for ship in ships}
    for ship in ships:
        limited[ship.name].mkdir()
        if unified:
            (limited[ship.name] / "cpu.max").write_text(f"{int(SHARE * 100_000)} 100000")
        else:
            (limited[ship.name] / "cpu.cfs_quota_us").write_text(str(int(SHARE * 100_000)))
        move(ship, limited[ship.name])
    try:
        yield
    finally:
        for ship in ships:
            move(ship, root)
            limited[ship.name].rmdir()


def move(ship: Machine, cgroup: Path) -> None:
    """All that runs there but in containers, and so what that starts."""
    there = (Path("/proc") / str(ship.pid) / "ns/pid").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if (process / "ns/pid").readlink() == there:
                (cgroup / "cgroup.procs").write_text(process.name)


def report(figures: dict[str, list[float]]) -> None:
    middle = {name: statistics.median(values) for name, values in figures.items()}
    for name, values in figures.items():
        unit = "" if name.startswith("bytes") else " s"
        print(f"{name:45} median {middle[name]:10.2f}{unit}  best {min(values):10.2f}{unit}")
    hand, hands = middle[HAND], middle[HANDS]
    one, four = middle["one host"], middle["four hosts at once"]
    print(f"one host / by hand: {one / hand:.2f} (aim: at most 1.20)")
    print(f"four hosts / one: {four / one:.2f} (aim: at most 1.50), on this machine's own cores")
    print(f"four hosts / one, each with {SHARE} of a core: {middle[FOUR] / middle[ONE]:.2f}")
    print(
        f"four by hand / one by hand: {hands / hand:.2f}; four hosts / by hand: {four / hands:.2f}"
    )
    beyond = middle["bytes beyond the layer"]
    print(f"bytes beyond the layer: {beyond:.0f} (aim: at most {LAYER_ALLOWANCE})")


if __name__ == "__main__":
    main()
