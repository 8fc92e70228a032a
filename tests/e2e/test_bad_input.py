"""Bad input: one clear sentence in the right place, the right state, and nothing left behind."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import Repository, Service, descendants

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(600)]

HOST_IDS = range(0x10000000, 0x10000000 + 100 * 65536)  # what the first projects are given
NAMESPACE = re.compile(r"(pid|net|ipc|mnt|uts|cgroup|time):\[\d+\]")
FROM = "FROM gantry/python:3\n"
UNIT = "gantry.yml: tests.unit"
TEST = "tests:\n  unit:\n    memory: 64m\n    pids: 32\n    timeout: 3s\n    command: "


@pytest.fixture(scope="module")
def bad(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    service.make_project("bad")
    return Repository(tmp_path_factory.mktemp("clone") / "bad", service, "bad")


@pytest.fixture(scope="module")
def before(service: Service, bad: Repository) -> set[str]:
    """The namespaces that the service has while it builds nothing."""
    return namespaces(service)


def namespaces(service: Service) -> set[str]:
    """Those in which a process of the service is, or that it holds open: ``net:[4026531840]``.

    But for the user namespaces that are kept open as mappings (runtime/snapshots/idmapped.py).
    """
    inside, held = set(), set()
    for pid in [service.process.pid, *descendants(service.process.pid)]:
        with suppress(OSError):  # it has ended
            inside |= {str(link.readlink()) for link in Path(f"/proc/{pid}/ns").iterdir()}
            held |= {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    return inside | {name for name in held if NAMESPACE.fullmatch(name)}


def traces(service: Service, before: set[str]) -> dict[str, list[str]]:
    """What sandboxes of this service could leave on the machine, by kind; other tests' are not
    counted, nor what is deployed, which has its project's ids too."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    ours = f"pipeline-{hashlib.sha256(str(service.home).encode()).hexdigest()[:8]}-"
    there = os.walk("/sys/fs/cgroup")  # passes by what others remove meanwhile
    groups = [f"{at}/{name}" for at, names, _ in there for name in names if name.startswith(ours)]
    found = {
        "processes": [
            entry.name
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal() and _uid(entry) in HOST_IDS and not _elsewhere(entry, ours)
        ],
        "mounts": [line for line in mounts if str(service.home / "sandboxes") in line],
        "cgroups": groups,
        "namespaces": sorted(namespaces(service) - before),
        "directories": [
            str(path)
            for folder in ("sandboxes", "store/mounts", "store/scratch", "store/tmp", "store/pins")
            for path in (service.home / folder).glob("*/*" if folder == "sandboxes" else "*")
        ],
    }
    return {kind: left for kind, left in found.items() if left}


def _elsewhere(entry: Path, ours: str) -> bool:
    """Is it deployed, or in a sandbox of another installation, as other tests start them?"""
    try:
        groups = (entry / "cgroup").read_text()
    except OSError:
        return True  # it has ended
    return "libpod" in groups or ("pipeline-" in groups and ours not in groups)


def _uid(entry: Path) -> int:
    try:
        return entry.stat().st_uid
    except OSError:
        return -1


CASES = {
    "syntax": ({"Dockerfile": FROM + 'CMD ["a"\nRUN\n'}, "Dockerfile:3:1", "RUN"),
    "unknown instruction": ({"Dockerfile": FROM + "RNU true\n"}, "Dockerfile:2:1", "RUN"),
    "missing source": (
        {"Dockerfile": FROM + "COPY requirments.txt /\n", "requirements.txt": "x"},
        "Dockerfile:2:6",
        "requirements.txt",
    ),
    "failing step": ({"Dockerfile": FROM + "RUN exit 3\n"}, "Dockerfile:2", "exit code 3"),
    "no such base": ({"Dockerfile": "FROM gantry/pyton:3\n"}, "Dockerfile:1:6", "gantry/pyton"),
    "another project's image": (
        {"Dockerfile": "FROM REGISTRY/hello:latest\n"},
        "Dockerfile:1:6",
        "is not one of bad",
    ),
    "failing test": (
        {"Dockerfile": FROM, "gantry.yml": TEST + "exit 4\n"},
        UNIT,
        "exit code 4. Its last lines are in the log.",
    ),
    "greedy test": (
        {
            "Dockerfile": FROM,
            "gantry.yml": TEST + "python3 -c 'x = bytearray(512 << 20); print(len(x))'\n",
        },
        UNIT,
        "or raise `memory` of tests.unit.",
    ),
    "forking test": (
        {
            "Dockerfile": FROM,
            "gantry.yml": TEST
            + "for i in $(seq 64); do sleep 60 & done; wait\n",  # little memory, however slow
        },
        UNIT,
        "or raise `pids` of tests.unit.",
    ),
    "hanging test": (
        {"Dockerfile": FROM, "gantry.yml": TEST + "sleep 600\n"},
        UNIT,
        "3 s reached. Have it take less, or raise `timeout` of tests.unit.",
    ),
    "bad definition": (
        {"Dockerfile": FROM, "gantry.yml": "tets: {}\n"},
        "gantry.yml:1: tets",
        "did you mean 'tests'?",
    ),
    "too much memory": (
        {"Dockerfile": FROM, "gantry.yml": "tests: {unit: {memory: 900g}}"},
        "gantry.yml: tests.unit.memory",
        "at most 2048m",
    ),
    "no Dockerfile": ({"README.md": "hello"}, "Dockerfile", "no Dockerfile"),
}

POINTED = {  # the line of the Dockerfile, a caret under what is wrong
    "unknown instruction": "  RNU true\n  ^",
    "missing source": "  COPY requirments.txt /\n       ^",
    "no such base": "  FROM gantry/pyton:3\n       ^",
}


@pytest.mark.parametrize("name", CASES)
def test_each_mistake_is_one_sentence_in_its_place(
    service: Service, bad: Repository, before: set[str], name: str
) -> None:
    files, place, words = CASES[name]
    for old in bad.path.iterdir():
        if old.is_file():
            old.unlink()
    files = {path: text.replace("REGISTRY", service.registry) for path, text in files.items()}
    commit = bad.push(files, message=name)
    pipeline = service.pipeline_of("bad", commit, seconds=60)
    assert pipeline["state"] == "failed"
    assert pipeline["place"] == place
    failed = [job for job in pipeline["jobs"] if job["state"] == "failed"]
    told = " ".join([pipeline["reason"], *(f"{job['reason']} {job['hint']}" for job in failed)])
    assert words in told, told
    assert len(pipeline["reason"]) < 300
    assert failed[0]["reason"] in service.log_of(failed[0])
    if name in POINTED:
        assert failed[0]["excerpt"] == POINTED[name]
        assert POINTED[name] in service.log_of(failed[0])
    assert not any(job["state"] in {"queued", "running"} for job in pipeline["jobs"])
    deadline = time.monotonic() + 10
    while (left := traces(service, before)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_a_webhook_with_a_wrong_signature_is_refused_and_one_with_the_right_one_is_not(
    service: Service, bad: Repository
) -> None:
    secret = service.post("projects/bad/hook-secret/", status=200)["secret"]
    body = json.dumps({"zen": "Keep it logically awesome.", "hook_id": 1}).encode()

    def deliver(key: str, number: int) -> httpx.Response:
        mac = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "X-GitHub-Event": "ping",
            "X-GitHub-Delivery": str(number),
            "X-Hub-Signature-256": f"sha256={mac}",
            "Content-Type": "application/json",
        }
        return httpx.post(
            f"{service.url}/hooks/github/bad/", content=body, headers=headers, trust_env=False
        )

    wrong = deliver("wrong", 1)
    assert wrong.status_code == 401
    assert wrong.headers["Content-Type"] == "application/problem+json"
    assert deliver(secret, 2).is_success
