"""One commit travels the whole way, and what is true of it on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.service import CHECKOUT, Repository, Service, containers_of, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(300)]
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def hello(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    service.make_project("hello", "qa", "prod")
    repository = Repository(tmp_path_factory.mktemp("clone") / "hello", service, "hello")
    shutil.copytree(CHECKOUT / "examples" / "hello", repository.path, dirs_exist_ok=True)
    return repository


@pytest.fixture(scope="module")
def first(service: Service, hello: Repository) -> Any:
    """The pipeline of the first push, which builds everything."""
    commit = hello.push({}, message="First")
    return service.pipeline_of("hello", commit)


def environment_of(service: Service, name: str) -> Any:
    rows = service.get("environments/", project="hello")["results"]
    return next(row for row in rows if row["name"] == name)


def port_of(service: Service, environment: str) -> int:
    return int(environment_of(service, environment)["port"])


def test_the_push_tells_where_to_watch(hello: Repository, first: Any) -> None:
    assert "pipeline #1" in hello.said
    assert "/projects/hello/pipelines/1/" in hello.said


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
    service: Service, first: Any
) -> None:
    qa = service.deployment("hello", "qa", 1)
    assert qa["state"] == "succeeded", qa["reason"]
    release = service.get("releases/", project="hello")["results"][0]
    service.post(f"releases/{release['id']}/promote/", {"environment": "prod"}, status=202)
    prod = service.deployment("hello", "prod", 1)
    assert prod["state"] == "succeeded", prod["reason"]

    page = httpx.get(f"http://127.0.0.1:{port_of(service, 'prod')}/", trust_env=False).text
    assert first["commit"] in page
    in_registry = digest_in_registry(service, first["commit"])
    assert release["digest"] == first["digest"] == in_registry
    assert running_digests(service, "prod") == {release["digest"]}


def test_the_command_line_reads_enters_stops_and_starts_what_runs(
    service: Service, hello: Repository, first: Any, tmp_path: Path
) -> None:
    def gantry(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "GANTRY_URL": service.url, "GANTRY_TOKEN": service.token}
        command = [sys.executable, "-m", "ciserver.cli", *words]
        return subprocess.run(
            command, cwd=CHECKOUT, env=env, input=given, text=True, capture_output=True, check=False
        )

    assert service.deployment("hello", "qa", 1)["state"] == "succeeded"
    [row] = json.loads(gantry("ps", "hello@qa", "--json").stdout)
    assert (row["host"], row["release"], row["state"]) == ("local", "v1", "running")
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

    stopped = gantry("stop", "hello@qa")
    assert (stopped.returncode, stopped.stdout) == (0, "local: v1 is stopped\n"), stopped.stderr
    assert "Start it first" in gantry("exec", "hello@qa", "--", "true").stderr
    started = gantry("start", "hello@qa")
    assert (started.returncode, started.stdout) == (0, "local: v1 serves\n"), started.stderr
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


def test_a_second_commit_builds_only_what_changed(
    service: Service, hello: Repository, first: Any
) -> None:
    greeting = hello.path / "hello" / "greeting.py"
    changed = greeting.read_text().replace('"Hello"', '"Good day"')
    commit = hello.push({"hello/greeting.py": changed}, message="Second")
    second = service.pipeline_of("hello", commit)
    assert second["state"] == "passed", second["reason"]
    steps = second["jobs"][0]["steps"]
    assert all(step["cached"] for step in steps if step["text"].startswith("RUN"))
    assert any(not step["cached"] for step in steps if step["text"].startswith("COPY"))
    assert second["bytes_sent"] < 100_000 < second["bytes_existing"]
    service.deployment("hello", "qa", 2)
    page = httpx.get(f"http://127.0.0.1:{port_of(service, 'qa')}/", trust_env=False).text
    assert page.startswith("Good day")
    assert commit in page


PROBE = """FROM gantry/python:3
RUN id -u && sleep 20
"""


@pytest.fixture
def sandboxed(service: Service, tmp_path: Path) -> Iterator[int]:
    """A process of a RUN step, found on the host by its user id while the step sleeps."""
    service.make_project("probe")
    repository = Repository(tmp_path / "probe", service, "probe")
    commit = repository.push({"Dockerfile": PROBE})
    yield wait_for(find_sandboxed, 30)
    row = service.get("pipelines/", project="probe", commit=commit)["results"][0]
    service.post(f"pipelines/{row['id']}/cancel/", status=202)
    assert service.pipeline_of("probe", commit, seconds=10)["state"] == "cancelled"
    assert find_sandboxed() is None


def find_sandboxed() -> int | None:
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and b"sleep\x0020" in (entry / "cmdline").read_bytes():
                return int(entry.name) if entry.stat().st_uid >= 0x10000000 else None
        except OSError:
            continue
    return None


def test_a_step_is_alone_in_the_world(sandboxed: int) -> None:
    process = Path(f"/proc/{sandboxed}")
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
    effective = int(status["CapEff"], 16)
    for refused in (12, 13, 16, 19, 21, 27, 29):
        # net_admin, net_raw, sys_module, sys_ptrace, sys_admin, mknod, audit_write
        assert not effective >> refused & 1, refused
    assert status["Seccomp"].strip() == "2"
    assert limits_of(sandboxed) == (2048 * MIB, 1024)


def limits_of(pid: int) -> tuple[int, int]:
    """Memory (bytes) and pids limits, as the process's own cgroup has them."""
    groups = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    root = Path("/sys/fs/cgroup")
    if "memory" in groups:
        memory = root / "memory" / groups["memory"][1:] / "memory.limit_in_bytes"
        pids = root / "pids" / groups["pids"][1:] / "pids.max"
    else:
        memory, pids = (root / groups[""][1:] / name for name in ("memory.max", "pids.max"))
    return int(memory.read_text()), int(pids.read_text())


def release_of(service: Service, commit: str) -> int | None:
    rows = service.get("releases/", project="hello")["results"]
    return next((row["number"] for row in rows if row["commit"] == commit), None)


def test_a_release_that_never_gets_healthy_leaves_the_old_one_serving(
    service: Service, hello: Repository, first: Any
) -> None:
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
        assert service.pipeline_of("hello", commit)["state"] == "passed"
        number = wait_for(lambda: release_of(service, commit), 30)
        deployment = service.deployment("hello", "qa", number, seconds=120)
    finally:
        stop.set()
        prober.join()
    assert deployment["state"] == "failed"
    assert "still serves" in deployment["reason"]
    assert failures == []
