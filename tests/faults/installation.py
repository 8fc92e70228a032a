"""An installation whose registry keeps an access log, and looks into what it leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

from ciserver.config import Config
from ciserver.ops.children import registry_settings
from tests.e2e.service import CHECKOUT, descendants, free_ports, stop_caddy, wait_for
from tests.postgresql import Cluster, cluster

CGROUP = re.compile(r"/gantry/[^/\s]+/[^/\s]+-[0-9a-f]{8}\b")
PUT = re.compile(rb'"PUT /v2/(\S+)/manifests/(\S+) HTTP/1.1" 201')


@dataclass
class Installation:
    home: Path
    url: str
    token: str
    supervisor: subprocess.Popen[bytes]
    registry_log: Path
    database: Cluster | None = None  # PostgreSQL; else it is SQLite's file
    seen: set[str] = field(default_factory=set)  # names of sandboxes

    def api(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, trust_env=False)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Read from the database itself, however the service fares."""
        if self.database:
            return _ask(self.database.url, query.replace("?", "%s"), values)
        path = f"file:{self.home}/db/gantry.sqlite3?mode=ro"
        with closing(sqlite3.connect(path, uri=True, timeout=20)) as database:
            return database.execute(query, values).fetchall()

    def processes(self) -> dict[str, list[int]]:
        """Process ids by what may be killed; a worker's own and those of its pool apart."""
        found: dict[str, list[int]] = {
            name: [] for name in ("web", "worker", "pool", "planner", "scheduler", "redis")
        }
        for pid in descendants(self.supervisor.pid):
            words = _command(pid)
            child = _parent(pid) == self.supervisor.pid
            if "ciserver.serve" in words:
                found["web"].append(pid)
            elif "tick" in words:
                found["scheduler"].append(pid)
            elif words.startswith("redis-server"):
                found["redis"].append(pid)
            elif "-Q default" in words:
                found["worker" if child else "pool"].append(pid)
            elif "-Q planning" in words and child:
                found["planner"].append(pid)
        return found

    def sandboxed(self) -> dict[int, str]:
        """Processes in this installation's sandboxes: process id -> cgroup."""
        boxes = {path.name for path in (self.home / "sandboxes" / "boxes").glob("*")}
        self.seen |= boxes
        return {
            pid: group for pid in _pids() if (group := cgroup_of(pid)) and _box_of(group) in boxes
        }

    def manifests(self) -> Counter[tuple[str, str]]:
        """How often each image, as (repository, tag), was pushed; the steps' cache is none."""
        puts = [(name.decode(), tag.decode()) for name, tag in
                PUT.findall(self.registry_log.read_bytes())]  # fmt: skip
        return Counter(put for put in puts if not put[0].endswith("/cache"))

    def left_behind(self) -> list[str]:
        """What an installation that has stopped should not leave: processes, mounts, boxes."""
        here = str(self.home).encode()
        found = [f"mount {line}" for line in _mounts(os.getpid()).decode().splitlines()
                 if str(self.home) in line]  # fmt: skip
        for pid in _pids():
            # A monitor of another installation's container, begun while a mount of ours was there,
            # has a copy of that: of monitors it is ours that speak of our home.
            monitor = "conmon" in _command(pid)
            mine = here in _command(pid).encode() or (not monitor and here in _mounts(pid))
            if (
                pid != os.getpid()
                and mine
                and not re.search("caddy|docker-registry", _command(pid))
            ):
                found.append(f"process {pid} {_command(pid)[:100]}")
        boxes = self.home / "sandboxes"
        for folder in ("boxes", "networks"):
            found += [f"{folder}: {path.name}" for path in (boxes / folder).iterdir()]
        for group in Path("/sys/fs/cgroup").glob("**/gantry/*/*"):
            if group.is_dir() and _box_of(str(group)) in self.seen:
                found.append(f"cgroup {group}")
        return found


def _ask(url: str, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    """It may be down for a moment, on purpose."""
    for _ in range(200):
        with suppress(psycopg.OperationalError):
            with psycopg.connect(url, connect_timeout=3) as database:
                return database.execute(query.encode(), values).fetchall()
        time.sleep(0.2)
    raise AssertionError("PostgreSQL does not come back")


@contextmanager
def installation(*, postgresql: bool = False, **settings: str) -> Iterator[Installation]:
    """Up, with an administrator and ``settings``; everything is removed afterwards."""
    with ExitStack() as stack:
        database = stack.enter_context(cluster()) if postgresql else None
        folder = tempfile.TemporaryDirectory(prefix="gantry-faults-", ignore_cleanup_errors=True)
        root = Path(stack.enter_context(folder))
        root.chmod(0o755)
        home = root / "home"
        port, registry, deploy = free_ports(3)
        env = {key: value for key, value in os.environ.items() if not key.startswith("GANTRY_")}
        env |= {
            "GANTRY_HOME": str(home),
            "GANTRY_PORT": str(port),
            "GANTRY_REGISTRY": f"127.0.0.2:{registry}",  # not 127.0.0.1: it is ours to start
            "GANTRY_DEPLOY_PORT": str(deploy),
            "GANTRY_OFFLINE": "1",
            **({"GANTRY_DATABASE_URL": database.url} if database else {}),
            **settings,
        }
        log = stack.enter_context((root / "up.log").open("wb"))
        up = [sys.executable, "-m", "ciserver.ops", "up"]
        supervisor = subprocess.Popen(up, cwd=CHECKOUT, env=env, stdout=log, stderr=log)
        stack.callback(_stop, supervisor, home)
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(url, supervisor), 90)
        registry_log = root / "registry.log"
        stack.enter_context(_registry(Config.from_env(env), root, registry_log))
        made = subprocess.run(
            [sys.executable, "manage.py", "bootstrap"],
            cwd=CHECKOUT, env=env, capture_output=True, check=True,
        )  # fmt: skip
        token = json.loads(made.stdout)["token"]
        yield Installation(home, url, token, supervisor, registry_log, database)


@contextmanager
def _registry(config: Config, root: Path, log: Path) -> Iterator[None]:
    told: dict[str, Any] = registry_settings(config)
    told["log"] = {"level": "info"}
    file = root / "registry.json"
    file.write_text(json.dumps(told))
    with log.open("wb") as output:
        command = ["docker-registry", "serve", str(file)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _stop(supervisor: subprocess.Popen[bytes], home: Path) -> None:
    if supervisor.poll() is None:
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait(60)
    stop_caddy(home)


def _answers(url: str, supervisor: subprocess.Popen[bytes]) -> bool | None:
    assert supervisor.poll() is None, "the service ended at its start"
    with suppress(httpx.HTTPError):
        answer = httpx.get(f"{url}/readyz", trust_env=False, verify=False)
        return answer.status_code == 200 or None
    return None


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return ""


def _mounts(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/mountinfo").read_bytes()
    return b""


def cgroup_of(pid: int) -> str:
    """That of a sandbox, ``/gantry/PIPELINE/SANDBOX-XXXXXXXX``, or nothing."""
    with suppress(OSError):
        if found := CGROUP.search(Path(f"/proc/{pid}/cgroup").read_text()):
            return found[0]
    return ""


def _box_of(group: str) -> str:
    return group.rpartition("/")[2].rpartition("-")[0]


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
