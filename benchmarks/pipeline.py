"""From commit to verdict, in three figures, each beside what a hook with Docker needs for it.

    sudo .venv/bin/python benchmarks/pipeline.py [--rounds 7] [--queued 100] [--no-docker]

1. The first log line: from ``git push`` returning to the line being in the page of a Chromium that
   has the page open that waits for the next pipeline; and the same at a bare reader of the page's
   stream. Beside it, what a hook gives who pushes: from ``git push`` beginning to the first line of
   ``docker build`` in the terminal.
2. A one-line change of examples/hello with a warm cache, to tests green and the image in the
   registry, from ``git push`` beginning (and returning). Beside it the same push to a bare
   repository whose post-receive hook runs ``docker build && docker run && docker push``, with
   BuildKit, to a registry of the same kind. Rounds take turns so that a busy moment meets both.
   Who pushes to the hook waits for all of it, to us for the push alone: the aim is for what is left
   when that returns. Of 0.31 s in all (0.49 by the hook) ``git push`` takes 0.10, its programs and
   three requests; then come the build, the test, of it the sandbox 0.05 and its Python the rest,
   and what is left of the upload.
3. ``--queued`` pipelines of one commit at once, each with a test that computes for about two
   seconds: what they take in all against the sum of their steps' own time shared by the workers'
   slots. Beside it as many such hooks at once, as many side by side as we have slots, against the
   sum of their ``docker run``.
   Beside 0.76 s of steps a pipeline takes 0.1 of a slot, which is what else the two cores do for
   it: 0.07 s of the worker's own processor time, 0.04 of the web process that queued it, 0.02 of
   its release, of the registry and of the scheduler.

Where Docker's engine or Chromium is not installed that part is left out, and said so.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

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
CHROMIUM = "/usr/bin/chromium-headless-shell"
FIRST_IN_PAGE = "gantry: git push returning -> line in Chromium"
FIRST_AT_READER = "gantry: git push returning -> line at a reader"
FIRST_OF_DOCKER = "hook: git push beginning -> line in the terminal"
RETURNED = "gantry: git push returning -> green and pushed"
BEGUN = "gantry: git push beginning -> green and pushed"
HOOK = "hook: git push beginning -> green and pushed"
FIRST_AIM, HALF, QUEUE_AIM = 0.3, 0.5, 0.15
POST_RECEIVE = """#!/bin/sh
set -e
read -r before commit ref
rm -rf {work} && mkdir {work} && git archive "$commit" | tar -x -C {work}
unset GIT_DIR GIT_QUARANTINE_PATH
cd {work}
{docker} build --progress plain --target test --tag bench:test .
{docker} run --rm --network none --memory 128m --pids-limit 32 --ulimit nofile=1024:1024 bench:test
{docker} build --quiet --tag {image}:"$commit" .
{docker} push --quiet {image}:"$commit"
echo green and pushed
"""
# When the first line of a log is there, by the clock of this machine, in milliseconds.
WATCH = """
new MutationObserver(() => {
  if (!window.firstLine && document.querySelector(".l"))
    window.firstLine = performance.timeOrigin + performance.now();
}).observe(document, {childList: true, subtree: true});
"""
PATIENCE = 1.0  # seconds
SLOTS = 2  # pipelines that a worker runs at once
GREETING = 'GREETING = "Hello number {}"'
WORK = ("python3", "-c", "print(sum(i * i for i in range(24_000_000)))")


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
            ours = Ours(service, area / "ours", stack.enter_context(chromium()))
            stack.callback(ours.browser.close)
            docker = None
            if not asked.no_docker:
                docker = stack.enter_context(docker_beside(area, service))
            report(measure(ours, docker, rounds))
            if asked.queued:
                took = report_queue(service, area / "queue", asked.queued)
                if docker is not None:
                    report_hooks(docker, area / "hooks", asked.queued, took)
    finally:
        shutil.rmtree(area, ignore_errors=True)


@contextmanager
def chromium() -> Iterator[Browser | None]:
    if not Path(CHROMIUM).exists():
        print("Chromium is not installed: the stream's reader alone.")
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Ours:
    """A project of the running service."""

    def __init__(self, service: Service, folder: Path, chromium: Browser | None) -> None:
        service.make_project("bench")
        self._service = service
        self._chromium = chromium
        self.browser = signed_in(service)
        self._pushes = 0
        self._repository = Repository(folder, service, "bench")
        shutil.copytree(CHECKOUT / "examples" / "hello", folder, dirs_exist_ok=True)

    def change(self, number: int) -> dict[str, float]:
        """Push a change for each figure; seconds by figure."""
        figures = self._at_a_reader(3 * number)
        if self._chromium is not None:
            figures |= self._in_a_page(3 * number + 1)
        return figures | self._passed(3 * number + 2)

    def _passed(self, number: int) -> dict[str, float]:
        commit = self._commit(number)
        before = time.time()
        self._push()
        pushed = time.time()
        time.sleep(PATIENCE)  # nobody asks meanwhile, as nobody asks Docker
        row = self._service.pipeline_of("bench", commit)
        assert row["state"] == "passed", row["reason"]
        finished = datetime.fromisoformat(row["finished_at"]).timestamp()
        return {RETURNED: max(0.0, finished - pushed), BEGUN: finished - before}

    def _at_a_reader(self, number: int) -> dict[str, float]:
        path = f"/projects/bench/pipelines/next/events?after={self._pushes}"
        follower = Follower(self.browser, path)
        thread = follower.start()
        wait_for(lambda: follower.connections or None, 10)
        self._commit(number)
        self._push()
        pushed = time.time()
        thread.join(60)
        assert follower.ended == "end"
        return {FIRST_AT_READER: max(0.0, follower.first_at - pushed)}

    def _in_a_page(self, number: int) -> dict[str, float]:
        assert self._chromium is not None
        context = self._chromium.new_context(base_url=self._service.url)
        context.add_init_script(WATCH)
        name = "gantry_session"
        value = self.browser.cookies[name]
        context.add_cookies([{"name": name, "value": value, "url": self._service.url}])
        page = context.new_page()
        page.goto("/projects/bench/pipelines/next/")
        time.sleep(PATIENCE)  # its stream is connected
        commit = self._commit(number)
        self._push()
        pushed = time.time()
        page.locator(".l").first.wait_for(state="attached", timeout=60_000)
        first = page.evaluate("window.firstLine") / 1000
        self._service.pipeline_of("bench", commit)
        context.close()
        return {FIRST_IN_PAGE: max(0.0, first - pushed)}

    def _commit(self, number: int) -> str:
        return commit(self._repository, number)

    def _push(self) -> None:
        self._pushes += 1
        self._repository.git("push", "--quiet", "origin", "HEAD:main")


def commit(repository: Repository, number: int) -> str:
    """Commit the one line that differs in change ``number``; the commit's id."""
    path = repository.path / "hello" / "greeting.py"
    lines = path.read_text().splitlines()
    lines = [GREETING.format(number) if line.startswith("GREETING") else line for line in lines]
    path.write_text("\n".join(lines) + "\n")
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "Change")
    return repository.git("rev-parse", "HEAD").strip()


class Docker:
    """A bare repository whose hook does it, on an engine of its own."""

    def __init__(self, folder: Path, socket: Path, registry: str, service: Service) -> None:
        self._registry = registry
        self._env = {**os.environ, "DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "1"}
        bare = folder.with_suffix(".git")
        subprocess.run(["git", "init", "--quiet", "--bare", bare], check=True)
        self._repository = Repository(folder, service, "theirs", remote=str(bare))
        hook = bare / "hooks" / "post-receive"
        work = folder.with_suffix(".work")
        image = f"{registry}/bench"
        hook.write_text(POST_RECEIVE.format(work=work, docker=CLIENT, image=image))
        hook.chmod(0o755)
        shutil.copytree(CHECKOUT / "examples" / "hello", folder, dirs_exist_ok=True)

    def change(self, number: int) -> dict[str, float]:
        commit(self._repository, number)
        start = time.time()
        process = subprocess.Popen(
            ["git", "push", "origin", "HEAD:main"],
            cwd=self._repository.path,
            env=self._env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        first, said = 0.0, ""
        assert process.stderr is not None
        for line in process.stderr:
            said += line
            if not first and line.startswith("remote:"):
                first = time.time()
        process.wait()
        took = time.time() - start
        if "green and pushed" not in said:
            sys.exit(f"the hook failed:\n{said[-2000:]}")
        return {FIRST_OF_DOCKER: first - start, HOOK: took}

    def hook(self, folder: Path, number: int) -> float:
        """One that tests ``folder`` and pushes it; seconds of its ``docker run``."""
        image = f"{self._registry}/queue:{number}"
        self.run("build", "--quiet", "--tag", image, ".", folder=folder)
        start = time.time()
        limits = ["--memory", "64m", "--cpus", "1"]
        self.run("run", "--rm", "--network", "none", *limits, image, *WORK, folder=folder)
        seconds = time.time() - start
        self.run("push", "--quiet", image, folder=folder)
        return seconds

    def run(self, *words: str, folder: Path) -> None:
        done = subprocess.run(
            [CLIENT, *words],
            cwd=folder,
            env=self._env,
            check=False,
            capture_output=True,
        )
        if done.returncode:
            sys.exit(f"docker {' '.join(words)} failed:\n{done.stderr.decode()[-2000:]}")


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
        docker = Docker(area / "theirs", socket, f"127.0.0.1:{port}", service)
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
    medians = {name: statistics.median(seconds) for name, seconds in figures.items()}
    print(f"{'':48} {'median':>8} {'best':>8} {'beside':>8}")
    for ours, peer in (
        ((FIRST_IN_PAGE, FIRST_AT_READER), FIRST_OF_DOCKER),
        ((RETURNED, BEGUN), HOOK),
    ):
        for name in (*ours, peer):
            if name in medians:
                ratio = f"{medians[name] / medians[peer]:7.2f}x" if peer in medians else ""
                print(f"{name:48} {medians[name]:7.3f}s {min(figures[name]):7.3f}s {ratio}")
    first = medians.get(FIRST_IN_PAGE, medians[FIRST_AT_READER])
    print(f"First line: {1000 * first:.0f} ms, {verdict(first, FIRST_AIM)} (<= 300 ms).")
    if HOOK in medians:
        left, all_of_it = medians[RETURNED] / medians[HOOK], medians[BEGUN] / medians[HOOK]
        print(
            f"Green and pushed: {left:.2f} of the hook when git push has returned,"
            f" {verdict(left, HALF)} (<= 0.50); {all_of_it:.2f} with the push itself."
        )


def verdict(found: float, aim: float) -> str:
    return "met" if found <= aim else "MISSED"


def report_queue(service: Service, folder: Path, count: int) -> float:
    """``count`` pipelines at once, against the time of their steps; seconds that all took."""
    service.make_project("queue")
    repository = Repository(folder, service, "queue")
    words = ", ".join(f"'{word}'" for word in WORK)
    first = repository.push(
        {
            "Dockerfile": f"FROM {BASE}\nCMD true\n",
            "gantry.yml": f"tests:\n  work: {{memory: 64m, cpus: 1, command: [{words}]}}\n",
        }
    )
    assert service.pipeline_of("queue", first)["state"] == "passed"
    time.sleep(5 * PATIENCE)  # pages have read what is in its layers, once for all that share them
    began = time.time()
    rows = [service.post("pipelines/", {"project": "queue"}) for _ in range(count)]
    # The last first: then the others are asked for once each, when all have ended.
    done = [finished(service, row["id"]) for row in reversed(rows)]
    assert all(row["state"] == "passed" for row in done)
    took = max(datetime.fromisoformat(row["finished_at"]).timestamp() for row in done) - began
    steps = [step["seconds"] or 0 for row in done for job in row["jobs"] for step in job["steps"]]
    own = sum(steps) / SLOTS
    print(
        f"{count} pipelines at once: {took:.1f} s; their steps' own time {sum(steps):.1f} s,"
        f" shared by {SLOTS} slots {own:.1f} s: {100 * (took / own - 1):+.1f} %,"
        f" {verdict(took / own - 1, QUEUE_AIM)} (<= +15 %)."
    )
    return took


def report_hooks(docker: Docker, folder: Path, count: int, ours: float) -> None:
    """The same work by hooks, as many side by side as we have slots."""
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nCMD true\n")
    docker.hook(folder, 0)
    began = time.time()
    with ThreadPoolExecutor(SLOTS) as pool:
        runs = list(pool.map(lambda number: docker.hook(folder, number), range(1, count + 1)))
    took = time.time() - began
    own = sum(runs) / SLOTS
    print(
        f"{count} hooks at once: {took:.1f} s; their docker run {sum(runs):.1f} s, shared by"
        f" {SLOTS} slots {own:.1f} s: {100 * (took / own - 1):+.1f} %."
        f" The pipelines took {ours / took:.2f} of that time."
    )


def finished(service: Service, pipeline: int) -> Any:
    """Its row, once it has ended. Asked seldom: the answers would take the pipelines' time."""
    while (row := service.get(f"pipelines/{pipeline}/"))["state"] not in FINISHED:
        time.sleep(PATIENCE)
    return row


if __name__ == "__main__":
    main()
