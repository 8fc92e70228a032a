"""A one-line change of examples/hello with a warm cache: from ``git push`` to tested and pushed.

    sudo .venv/bin/python benchmarks/pipeline.py [--rounds 7] [--queued 100] [--no-docker]

Ours: from ``git push`` returning to the pipeline's row saying that it passed (tests green, image
in the registry). Beside it, where Docker's engine is installed, what a post-receive hook would
run on the same change: ``docker build && docker run && docker push``, with BuildKit, to a
registry of the same kind. Both start warm; rounds take turns so that a busy moment meets both.

In other rounds a browser has the page open that waits for the next pipeline, by a stream of events
connected before the push: from ``git push`` returning to the first log line there. At the end
``--queued`` pipelines of one commit are started at once, each with a test that computes for about
two seconds: what they take in all, against the sum of their steps' own time shared by the workers'
slots.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from builders.images.reference import Reference
from builders.images.store import Store
from tests.e2e.follow import Follower, signed_in
from tests.e2e.service import (
    BASE,
    FINISHED,
    Repository,
    Service,
    free_ports,
    running_service,
    wait_for,
)

# The distribution's client goes with its engine: a newer one builds only with a plug-in.
CLIENT = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
FIRST_LINE = "gantry: git push returning -> first line"
PATIENCE = 1.0  # seconds
SLOTS = 2  # pipelines that a worker runs at once
GREETING = 'GREETING = "Hello number {}"'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--queued", type=int, default=100, help="pipelines at once; 0: none")
    parser.add_argument("--no-docker", action="store_true")
    asked = parser.parse_args()
    rounds = asked.rounds
    area = Path(tempfile.mkdtemp(prefix="gantry-bench-"))
    area.chmod(0o755)
    try:
        with ExitStack() as stack:
            service = stack.enter_context(running_service(area / "home"))
            ours = Ours(service, area / "ours")
            stack.callback(ours.browser.close)
            docker = None
            if not asked.no_docker:
                docker = stack.enter_context(docker_beside(area, service))
            report(measure(ours, docker, rounds))
            if asked.queued:
                report_queue(service, area / "queue", asked.queued)
    finally:
        shutil.rmtree(area, ignore_errors=True)


class Ours:
    """A project of the running service."""

    name = "gantry: git push returning -> passed"

    def __init__(self, service: Service, folder: Path) -> None:
        service.make_project("bench")
        self._service = service
        self.browser = signed_in(service)
        self._pushes = 0
        self._repository = Repository(folder, service, "bench")
        shutil.copytree(CHECKOUT / "examples" / "hello", folder, dirs_exist_ok=True)

    def change(self, number: int) -> dict[str, float]:
        """Push change ``number`` twice, with and without a browser; seconds by figure."""
        return {**self._passed(2 * number), **self._seen(2 * number + 1)}

    def _passed(self, number: int) -> dict[str, float]:
        before = time.time()
        commit = self._push(number)
        pushed = time.time()
        time.sleep(PATIENCE)  # nobody asks meanwhile, as nobody asks Docker
        row = self._service.pipeline_of("bench", commit)
        assert row["state"] == "passed", row["reason"]
        finished = datetime.fromisoformat(row["finished_at"]).timestamp()
        return {
            self.name: max(0.0, finished - pushed),
            "gantry: commit and git push themselves": pushed - before,
        }

    def _seen(self, number: int) -> dict[str, float]:
        path = f"/projects/bench/pipelines/next/events?after={self._pushes}"
        follower = Follower(self.browser, path)
        thread = follower.start()
        wait_for(lambda: follower.connections or None, 10)
        self._push(number)
        pushed = time.time()
        thread.join(60)
        assert follower.ended == "end"
        return {FIRST_LINE: max(0.0, follower.first_at - pushed)}

    def _push(self, number: int) -> str:
        self._pushes += 1
        return self._repository.push(changed(self._repository.path, number))


class Docker:
    """What a hook would do, on an engine of its own."""

    name = "docker build && run && push"

    def __init__(self, folder: Path, socket: Path, registry: str) -> None:
        self._folder = folder
        self._image = f"{registry}/bench"
        self._env = {**os.environ, "DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "1"}
        shutil.copytree(CHECKOUT / "examples" / "hello", folder)

    def change(self, number: int) -> dict[str, float]:
        for path, text in changed(self._folder, number).items():
            (self._folder / path).write_text(text)
        start = time.time()
        self.run("build", "--quiet", "--target", "test", "--tag", "bench:test", ".")
        limits = ["--memory", "128m", "--pids-limit", "32", "--ulimit", "nofile=1024:1024"]
        self.run("run", "--rm", "--network", "none", *limits, "bench:test")
        self.run("build", "--quiet", "--tag", f"{self._image}:{number}", ".")
        self.run("push", "--quiet", f"{self._image}:{number}")
        return {self.name: time.time() - start}

    def run(self, *words: str) -> None:
        done = subprocess.run(
            [CLIENT, *words], cwd=self._folder, env=self._env, check=False, capture_output=True
        )
        if done.returncode:
            sys.exit(f"docker {' '.join(words)} failed:\n{done.stderr.decode()[-2000:]}")


def changed(folder: Path, number: int) -> dict[str, str]:
    """The one line that differs."""
    path = "hello/greeting.py"
    lines = (folder / path).read_text().splitlines()
    lines = [GREETING.format(number) if line.startswith("GREETING") else line for line in lines]
    return {path: "\n".join(lines) + "\n"}


@contextmanager
def docker_beside(area: Path, service: Service) -> Iterator[Docker | None]:
    """An engine with our base image and a registry without a password; None without Docker."""
    if not (shutil.which("dockerd") and shutil.which("docker-registry")):
        print("Docker's engine is not installed: ours alone.")
        yield None
        return
    (port,) = free_ports(1)
    config = area / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {area}/registry\n"
        f"http:\n  addr: 127.0.0.1:{port}\n"
    )
    root, socket = area / "docker", area / "docker.sock"
    engine = ["dockerd", "--data-root", f"{root}/data", "--exec-root", f"{root}/exec"]
    engine += ["--pidfile", f"{root}.pid", "--host", f"unix://{socket}"]
    with ExitStack() as stack:
        for command in (["docker-registry", "serve", str(config)], engine):
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        wait_for(lambda: socket.exists() or None, 30)
        docker = Docker(area / "theirs", socket, f"127.0.0.1:{port}")
        import_base(service, socket)
        yield docker


def import_base(service: Service, socket: Path) -> None:
    """Our base's one layer, as Docker's image of the same name."""
    image = Store(service.home / "store").find_image(Reference.parse(BASE))
    assert image is not None
    (layer,) = image.layers
    tar = subprocess.Popen(["tar", "-C", layer.tree, "-c", "."], stdout=subprocess.PIPE)
    env = {**os.environ, "DOCKER_HOST": f"unix://{socket}"}
    command = [CLIENT, "import", "--change", "ENV PATH=/usr/bin:/bin:/usr/sbin:/sbin"]
    subprocess.run([*command, "-", BASE], stdin=tar.stdout, env=env, check=True)
    assert tar.wait() == 0


def measure(ours: Ours, docker: Docker | None, rounds: int) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {}
    for number in range(rounds + 2):
        for contestant in filter(None, (ours, docker)):
            for name, seconds in contestant.change(number).items():
                if number > 1:  # the first two fill the caches
                    figures.setdefault(name, []).append(seconds)
    return figures


def report(figures: dict[str, list[float]]) -> None:
    first = statistics.median(figures[Ours.name])
    print(f"{'':44} {'median':>8} {'best':>8} {'ratio':>7}")
    for name, seconds in figures.items():
        median = statistics.median(seconds)
        print(f"{name:44} {median:7.2f}s {min(seconds):7.2f}s {median / first:6.2f}x")


def report_queue(service: Service, folder: Path, count: int) -> None:
    """``count`` pipelines at once: the time in all against that of their steps."""
    service.make_project("queue")
    repository = Repository(folder, service, "queue")
    work = "sum(i * i for i in range(24_000_000))"
    first = repository.push(
        {
            "Dockerfile": f"FROM {BASE}\nCMD true\n",
            "gantry.yml": "tests:\n  work: {memory: 64m, cpus: 1, command: "
            f"[python3, -c, 'print({work})']}}\n",
        }
    )
    assert service.pipeline_of("queue", first)["state"] == "passed"
    began = time.time()
    rows = [service.post("pipelines/", {"project": "queue"}) for _ in range(count)]
    done = [wait_for(lambda row=row: finished(service, row["id"]), 3600) for row in rows]
    assert all(row["state"] == "passed" for row in done)
    took = max(datetime.fromisoformat(row["finished_at"]).timestamp() for row in done) - began
    steps = [step["seconds"] or 0 for row in done for job in row["jobs"] for step in job["steps"]]
    own = sum(steps) / SLOTS
    print(
        f"{count} pipelines at once: {took:.1f} s; their steps' own time {sum(steps):.1f} s,"
        f" shared by {SLOTS} slots {own:.1f} s: {100 * (took / own - 1):+.1f} %"
    )


def finished(service: Service, pipeline: int) -> Any:
    row = service.get(f"pipelines/{pipeline}/")
    return row if row["state"] in FINISHED else None


if __name__ == "__main__":
    main()
