"""One commit travels the whole way, and what is true of it on the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.follow import signed_in
from tests.e2e.service import CHECKOUT, Repository, Service, containers_of, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(600)]
MIB = 1024 * 1024


def pipeline_of_demo(service: Service, number: int) -> Any:
    rows = service.get("pipelines/", project="hello")["results"]
    found = next(row for row in rows if row["number"] == number)
    return service.get(f"pipelines/{found['id']}/")


@pytest.fixture(scope="module")
def first(service: Service) -> Any:
    """The pipeline of the demo's first push, which builds everything."""
    return pipeline_of_demo(service, 1)


@pytest.fixture(scope="module")
def second(service: Service) -> Any:
    """That of its second, which changes one line."""
    return pipeline_of_demo(service, 2)


def environment_of(service: Service, name: str) -> Any:
    rows = service.get("environments/", project="hello")["results"]
    return next(row for row in rows if row["name"] == name)


def port_of(service: Service, environment: str) -> int:
    return int(environment_of(service, environment)["port"])


def test_the_demo_tells_the_way_of_both_commits(service: Service, first: Any, second: Any) -> None:
    said = service.said
    assert "Ran 5 tests" in said
    for number, pipeline in enumerate((first, second), 1):
        assert f"prod runs v{number}" in said
        assert f"from prod: v{number}, commit {pipeline['commit']}" in said
    assert re.search(r"steps built +4 +2\b", said)
    assert re.search(r"steps from the cache +0 +2\b", said)
    assert f"Dashboard   {service.url}" in said
    signed_in(service)  # with the password that it printed


def test_the_first_push_is_built_tested_and_pushed(service: Service, first: Any) -> None:
    assert first["state"] == "passed", first["reason"]
    assert [job["kind"] for job in first["jobs"]] == ["build", "test", "push"]
    assert {job["state"] for job in first["jobs"]} == {"passed"}
    cases = first["jobs"][1]["cases"]
    assert cases
    assert {case["outcome"] for case in cases} == {"passed"}
    ran = [step for step in first["jobs"][0]["steps"] if step["text"].startswith("RUN")]
    assert ran[0]["receipt"]["outcome"] == "exited"
    assert ran[0]["receipt"]["peak_memory"] > 0


def test_qa_has_it_by_itself_and_prod_by_promotion_with_one_digest(
    service: Service, second: Any
) -> None:
    for number in (1, 2):
        qa = service.deployment("hello", "qa", number)
        assert (qa["state"], qa["kind"]) == ("succeeded", "auto"), qa["reason"]
        prod = service.deployment("hello", "prod", number)
        assert (prod["state"], prod["kind"]) == ("succeeded", "promotion"), prod["reason"]

    page = httpx.get(f"http://127.0.0.1:{port_of(service, 'prod')}/", trust_env=False).text
    assert second["commit"] in page
    release = service.get("releases/", project="hello")["results"][0]
    in_registry = digest_in_registry(service, second["commit"])
    assert release["digest"] == second["digest"] == in_registry
    assert running_digests(service, "prod") == {release["digest"]}


def test_the_command_line_reads_enters_stops_and_starts_what_runs(
    service: Service, tmp_path: Path
) -> None:
    def gantry(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "GANTRY_URL": service.url, "GANTRY_TOKEN": service.token}
        command = [sys.executable, "-m", "ciserver.cli", *words]
        return subprocess.run(
            command, cwd=CHECKOUT, env=env, input=given, text=True, capture_output=True, check=False
        )

    [row] = json.loads(gantry("ps", "hello@qa", "--json").stdout)
    assert (row["host"], row["release"], row["state"]) == ("local", "v2", "running")
    entered = gantry("exec", "hello@qa", "-i", "--", "sh", "-c", "cat; exit 3", given="over here")
    assert (entered.returncode, entered.stdout) == (3, "over here"), entered.stderr
    assert gantry("logs", "hello@qa").stdout == "listening on port 8080\n"
    line = {"stream": "out", "line": "listening on port 8080"}
    assert json.loads(gantry("logs", "hello@qa", "--json").stdout) == line
    (tmp_path / "note").write_text("hello")
    there = gantry("cp", str(tmp_path / "note"), "hello@qa:/tmp", "--json")
    assert json.loads(there.stdout) == {"copied": ["hello@qa:/tmp/note"]}, there.stderr
    assert gantry("cp", "hello@qa:/tmp/note", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back" / "note").read_text() == "hello"

    said = json.loads(gantry("exec", "hello@qa", "--json", "--", "sh", "-c", "echo hi").stdout)
    assert said == {"exit_code": 0, "stdout": "hi\n", "stderr": ""}
    stopped = gantry("stop", "hello@qa", "--json")
    assert json.loads(stopped.stdout)["state"] == "ended", stopped.stderr
    assert "Start it first" in gantry("exec", "hello@qa", "--", "true").stderr
    started = gantry("start", "hello@qa")
    assert (started.returncode, started.stdout) == (0, "local: v2 serves\n"), started.stderr
    address = f"http://127.0.0.1:{port_of(service, 'qa')}/"
    assert httpx.get(address, trust_env=False).status_code == 200


def digest_in_registry(service: Service, tag: str) -> str:
    """Asked of the registry itself, with a token as any client gets it."""
    answer = httpx.get(
        f"{service.url}/api/v1/registry/token",
        params={"service": "gantry-registry", "scope": "repository:hello:pull"},
        auth=("admin", service.token),
        trust_env=False,
    )
    token = answer.json()["token"]
    manifest = httpx.head(
        f"http://{service.registry}/v2/hello/manifests/{tag}",
        headers={
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.oci.image.manifest.v1+json",
        },
        trust_env=False,
    )
    return manifest.headers["Docker-Content-Digest"]


def running_digests(service: Service, environment: str) -> set[str]:
    """What podman says that it runs, not what our rows say."""
    ids = containers_of(service.home, project="hello", environment=environment)
    told = subprocess.run(["podman", "inspect", *ids], capture_output=True, check=True)
    return {container["ImageDigest"] for container in json.loads(told.stdout)}


def test_a_second_commit_builds_only_what_changed(service: Service, second: Any) -> None:
    assert second["state"] == "passed", second["reason"]
    steps = second["jobs"][0]["steps"]
    assert all(step["cached"] for step in steps if step["text"].startswith("RUN"))
    assert any(not step["cached"] for step in steps if step["text"].startswith("COPY"))
    assert second["bytes_sent"] < 100_000 < second["bytes_existing"]
    page = httpx.get(f"http://127.0.0.1:{port_of(service, 'qa')}/", trust_env=False).text
    assert page.startswith("Hello number 2")
    assert second["commit"] in page


def test_a_second_demo_uses_what_runs_and_ends_by_itself(service: Service) -> None:
    done = subprocess.run(
        [CHECKOUT / "gantry", "demo", "--exit"],
        env=service.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Using the service that runs already" in done.stdout
    commit = pipeline_of_demo(service, 4)["commit"]
    assert f"Hello number 4 from prod: v4, commit {commit}" in done.stdout
    assert service.process.poll() is None
    page = httpx.get(f"http://127.0.0.1:{port_of(service, 'prod')}/", trust_env=False).text
    assert page.startswith("Hello number 4")


BASE = "FROM gantry/python:3\n"
# Files, and the limits that its sandbox has: those of every build, or those that are asked for.
PROBES = {
    "step": ({"Dockerfile": BASE + "RUN id -u && sleep 20\n"}, (2048 * MIB, 2, 1024)),
    "test": (
        {
            "Dockerfile": BASE,
            "gantry.yml": "tests: {unit: {memory: 300m, cpus: 0.5, pids: 77,"
            " command: 'id -u && sleep 20'}}",
        },
        (300 * MIB, 0.5, 77),
    ),
}


@pytest.fixture(params=PROBES)
def sandboxed(
    service: Service, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[int, tuple[int, float, int]]]:
    """A process in a sandbox, found on the host by its user id while it sleeps, and its limits."""
    files, limits = PROBES[request.param]
    slug = f"probe-{request.param}"
    service.make_project(slug)
    commit = Repository(tmp_path / slug, service, slug).push(files)
    yield wait_for(find_sandboxed, 30), limits
    row = service.get("pipelines/", project=slug, commit=commit)["results"][0]
    service.post(f"pipelines/{row['id']}/cancel/", status=202)
    assert service.pipeline_of(slug, commit, seconds=10)["state"] == "cancelled"
    assert find_sandboxed() is None


def find_sandboxed() -> int | None:
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdecimal()
                and entry.stat().st_uid >= 0x10000000
                and b"sleep\x0020" in (entry / "cmdline").read_bytes()
            ):
                return int(entry.name)
        except OSError:
            continue
    return None


def test_a_step_is_alone_in_the_world(sandboxed: tuple[int, tuple[int, float, int]]) -> None:
    pid, limits = sandboxed
    process = Path(f"/proc/{pid}")
    for kind in ("user", "pid", "net", "ipc", "mnt", "uts", "cgroup"):
        mine = Path(f"/proc/self/ns/{kind}").readlink()
        assert mine != (process / "ns" / kind).readlink(), kind
    for name in ("uid_map", "gid_map"):
        inside, outside, count = (process / name).read_text().split()
        assert (int(inside), int(count)) == (0, 65536)
        assert int(outside) >= 0x10000000
    status = dict(
        line.split(":\t", 1)
        for line in (process / "status").read_text().splitlines()
        if "\t" in line
    )
    # Of its own user namespace: Moby's fourteen less mknod, net_raw and audit_write.
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0x800405FB
    assert status["Seccomp"].strip() == "2"
    assert limits_of(pid) == limits


def limits_of(pid: int) -> tuple[int, float, int]:
    """Memory (bytes), cores and pids, as the process's own cgroup has them."""
    groups = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    root = Path("/sys/fs/cgroup")
    if "memory" in groups:
        memory = root / "memory" / groups["memory"][1:] / "memory.limit_in_bytes"
        pids = root / "pids" / groups["pids"][1:] / "pids.max"
        cpu = root / "cpu" / groups["cpu"][1:]
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota, period = (int((cpu / name).read_text()) for name in names)
    else:
        group = root / groups[""][1:]
        memory, pids = group / "memory.max", group / "pids.max"
        quota, period = map(int, (group / "cpu.max").read_text().split())
    return int(memory.read_text()), quota / period, int(pids.read_text())


def release_of(service: Service, commit: str) -> int | None:
    rows = service.get("releases/", project="hello")["results"]
    return next((row["number"] for row in rows if row["commit"] == commit), None)


def test_a_release_that_never_gets_healthy_leaves_the_old_one_serving(
    service: Service, tmp_path: Path
) -> None:
    hello = Repository(tmp_path / "hello", service, "hello")
    qa = environment_of(service, "qa")
    port = qa["port"]
    quick = service.http.patch(f"environments/{qa['id']}/", json={"health_timeout": 15})
    assert quick.status_code == 200, quick.text
    stop, failures = threading.Event(), []

    def probe() -> None:
        with httpx.Client(trust_env=False) as client:
            while not stop.wait(0.05):
                try:
                    if client.get(f"http://127.0.0.1:{port}/").status_code != 200:
                        failures.append("status")
                except httpx.HTTPError as error:
                    failures.append(str(error))

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        broken = "raise SystemExit(1)\n"
        commit = hello.push({"hello/healthcheck.py": broken}, message="Never healthy")
        assert "/projects/hello/pipelines/5/" in hello.said
        assert service.pipeline_of("hello", commit)["state"] == "passed"
        number = wait_for(lambda: release_of(service, commit), 30)
        deployment = service.deployment("hello", "qa", number, seconds=120)
    finally:
        stop.set()
        prober.join()
    assert deployment["state"] == "failed"
    assert "still serves" in deployment["reason"]
    assert failures == []
