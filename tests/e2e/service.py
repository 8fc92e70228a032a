"""A whole installation of our own, as people use it: git push, the HTTP API, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

CHECKOUT = Path(__file__).resolve().parents[2]
BASE = "gantry/python:3"
FINISHED = {"passed", "failed", "cancelled"}


@dataclass
class Service:
    """A running installation and its administrator's token."""

    home: Path
    env: dict[str, str]
    url: str
    registry: str
    token: str
    process: subprocess.Popen[bytes]
    http: httpx.Client
    password: str = ""
    said: str = ""  # until it was up

    def get(self, path: str, **params: str) -> Any:
        answer = self.http.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: dict[str, Any] | None = None, *, status: int = 201) -> Any:
        answer = self.http.post(path, json=body or {})
        assert answer.status_code == status, answer.text
        return answer.json()

    def make_project(self, slug: str, *environments: str) -> None:
        """A hosted project; the first environment is automatic."""
        self.post("projects/", {"slug": slug})
        for position, name in enumerate(environments):
            body = {"project": slug, "name": name, "auto": position == 0}
            self.post("environments/", body)

    def pipeline_of(self, slug: str, commit: str, *, seconds: float = 120) -> Any:
        """The finished pipeline of a commit, with its jobs."""

        def look() -> Any:
            rows = self.get("pipelines/", project=slug, commit=commit)["results"]
            return rows[0] if rows and rows[0]["state"] in FINISHED else None

        return self.get(f"pipelines/{wait_for(look, seconds)['id']}/")

    def log_of(self, job: Any) -> str:
        return self.http.get(f"jobs/{job['id']}/log/").text

    def deployment(self, slug: str, environment: str, release: int, *, seconds: float = 60) -> Any:
        """The finished deployment of a release to an environment."""

        def look() -> Any:
            for row in self.get("deployments/", project=slug)["results"]:
                here = (row["environment"], row["release_name"]) == (environment, f"v{release}")
                if here and row["state"] not in {"queued", "running"}:
                    return row
            return None

        return wait_for(look, seconds)

    def worker_pids(self) -> list[int]:
        """The worker and its children, found through the supervisor that we started."""
        return [
            pid
            for pid in descendants(self.process.pid)
            if b"celery" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]


class Repository:
    """A working copy with a remote, at the service if no other, and what that has on main."""

    def __init__(self, path: Path, service: Service, slug: str, *, remote: str = "") -> None:
        self.path = path
        path.mkdir(parents=True)
        address = service.url.replace("://", f"://admin:{service.token}@")
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", remote or f"{address}/git/{slug}.git")
        if self.git("ls-remote", "--heads", "origin", "main"):
            self.git("pull", "--quiet", "origin", "main")

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=Alice", "-c", "user.email=alice@example.org", *words],
            cwd=self.path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def push(self, files: dict[str, str], *, branch: str = "main", message: str = "Change") -> str:
        """Commit ``files`` and push them; the commit's id."""
        for name, text in files.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        self.said = self.git("push", "--quiet", "origin", f"HEAD:{branch}")
        return self.git("rev-parse", "HEAD").strip()


@contextmanager
def running_service(home: Path) -> Iterator[Service]:
    """``gantry up`` with a base and an administrator, and nothing else."""
    env = environment_of(home)
    command = [sys.executable, "-m", "ciserver.ops", "up"]
    with _started(command, home, env) as process:
        wait_for(lambda: _ready(_url(env), process), 180)
        _make_base(env)
        told = _bootstrap(env)
        with _service(home, env, process, told["token"], told["password"] or "") as service:
            yield service


@contextmanager
def running_demo(home: Path) -> Iterator[Service]:
    """``./gantry demo`` as it stays up, with two commits of hello in production, and its end."""
    env = environment_of(home) | {"XDG_CONFIG_HOME": str(home.parent)}
    log = home.parent / "up.log"
    with _started([str(CHECKOUT / "gantry"), "demo"], home, env) as process:

        def stays_up() -> str | None:
            text = log.read_text()
            assert process.poll() is None, text
            return text if "stays up until" in text else None

        said = wait_for(stays_up, 500)  # a base is made meanwhile
        password = re.search(r"Password +(\S+)", said)
        assert password, said
        token = _bootstrap(env)["token"]  # the demo's own is replaced by that of its second run
        with _service(home, env, process, token, password[1]) as service:
            service.said = said
            yield service
        supervisor = int((home / "run" / "gantry.pid").read_text())
        process.terminate()  # as Ctrl-C does, which a shell's background jobs ignore
        assert process.wait(timeout=90) == 0, log.read_text()
        assert not Path(f"/proc/{supervisor}").exists()


def environment_of(home: Path) -> dict[str, str]:
    port, registry, deploy = free_ports(3)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("GANTRY_")},
        "GANTRY_HOME": str(home),
        "GANTRY_PORT": str(port),
        "GANTRY_REGISTRY": f"127.0.0.1:{registry}",
        "GANTRY_DEPLOY_PORT": str(deploy),
        "GANTRY_OFFLINE": "1",
        "GANTRY_WEB_PROCESSES": "1",  # tests/faults kills the one of two
    }


def _url(env: dict[str, str]) -> str:
    return f"http://127.0.0.1:{env['GANTRY_PORT']}"


@contextmanager
def _started(
    command: list[str], home: Path, env: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, which says what it says to ``up.log``; nothing that it made is left."""
    with (home.parent / "up.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=env, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        _remove_containers(home)
        _remove_images(env["GANTRY_REGISTRY"])


@contextmanager
def _service(
    home: Path, env: dict[str, str], process: subprocess.Popen[bytes], token: str, password: str
) -> Iterator[Service]:
    headers = {"Authorization": f"Bearer {token}"}
    url = _url(env)
    with httpx.Client(base_url=f"{url}/api/v1", headers=headers, trust_env=False) as http:
        yield Service(home, env, url, env["GANTRY_REGISTRY"], token, process, http, password)


def containers_of(home: Path, **labels: str) -> list[str]:
    """Ids of the containers that this installation deployed, as podman lists them."""
    key = (home / "keys" / "secret_key").read_text().strip()
    installation = hashlib.sha256(f"installation {key}".encode()).hexdigest()[:8]
    command = ["podman", "ps", "--all", "--quiet", "--no-trunc"]
    for name, value in {"installation": installation, **labels}.items():
        command += ["--filter", f"label=gantry.{name}={value}"]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode().split()


def _remove_containers(home: Path) -> None:
    """What was deployed stays when the service stops, and so does its proxy: it is production."""
    stop_caddy(home)
    if ids := containers_of(home):
        command = ["podman", "rm", "--force", "--time", "0", *ids]
        removed = subprocess.run(command, capture_output=True, text=True, check=False)
        # Its own clean-up of a container that just ended may come between: what counts is the end.
        assert not containers_of(home), removed.stderr


def _remove_images(registry: str) -> None:
    """What the engine of this machine pulled from a registry that is gone."""
    command = ["podman", "images", "--quiet", "--filter", f"reference={registry}/*"]
    ids = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if ids:
        subprocess.run(["podman", "rmi", "--force", *ids], capture_output=True, check=False)


def stop_caddy(home: Path) -> None:
    transport = httpx.HTTPTransport(uds=str(home / "run" / "caddy.sock"))
    with httpx.Client(transport=transport) as client, suppress(httpx.HTTPError):
        client.post("http://localhost/stop")


def _bootstrap(env: dict[str, str]) -> dict[str, str]:
    """The administrator's name and token, and the password if it is made just now."""
    made = subprocess.run(
        [sys.executable, "manage.py", "bootstrap"],
        cwd=CHECKOUT,
        env=env,
        capture_output=True,
        check=True,
    )
    told: dict[str, str] = json.loads(made.stdout)
    return told


def _ready(url: str, process: subprocess.Popen[bytes]) -> bool | None:
    assert process.poll() is None, "the service ended while it started; see up.log"
    try:
        return httpx.get(f"{url}/readyz", trust_env=False, verify=False).status_code == 200 or None
    except httpx.HTTPError:
        return None


def _make_base(env: dict[str, str]) -> None:
    words = [sys.executable, "-m", "builders", "base", BASE]
    subprocess.run(words, cwd=CHECKOUT, env=env, check=True, capture_output=True)


def wait_for(look: Callable[[], Any], seconds: float) -> Any:
    """The first thing that ``look`` finds, asked four times a second."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"nothing after {seconds} s"
        time.sleep(0.25)
    return found


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


def descendants(pid: int) -> list[int]:
    """Every process below ``pid``."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found
