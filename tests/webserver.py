"""A web process of its own with one project, and a forge that posts to it: no workers."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx

from ciserver.lib.keys import ensure_keys
from tests.database import migrate

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDERS = ("db", "run", "logs", "repositories", "mirrors", "static")
MAKE_PROJECT = """
from ciserver.projects.models import Project
print(Project.objects.create(slug="hello").renew_hook_secret().reveal())
"""


@dataclass
class Web:
    url: str
    home: Path
    env: dict[str, str]
    secret: str
    pid: int
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def request(self, *, delivery: str = "") -> httpx.Request:
        """A signed push of a new commit to a branch of its own, as GitHub sends it."""
        number = next(self.numbers)
        body = json.dumps(
            {"ref": f"refs/heads/b{number}", "after": f"{number:040x}", "sender": {"login": "o"}}
        ).encode()
        headers = {
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": delivery or f"d-{number}",
            "X-Hub-Signature-256": "sha256="
            + hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest(),
            "Content-Type": "application/json",
        }
        return httpx.Request(
            "POST", f"{self.url}/hooks/github/hello/", headers=headers, content=body
        )

    def cpu_seconds(self) -> float:
        """What the web process has spent so far, of its own and the kernel's; proc(5)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def deliveries(self) -> int:
        """How many are in the database."""
        return int(
            manage(self.env, "from ciserver.webhooks.models import Delivery as D; "
                             "print(D.objects.filter(verdict='accepted').count())")
        )  # fmt: skip


def manage(env: dict[str, str], script: str) -> str:
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", script]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@contextmanager
def web(home: Path, *, app: str = "ciserver.asgi:application", **settings: str) -> Iterator[Web]:
    """Answers when this yields. ``settings`` are variables of the environment."""
    for name in FOLDERS:
        (home / name).mkdir(parents=True, exist_ok=True)
    ensure_keys(home / "keys")
    port = free_port()
    env = {key: value for key, value in os.environ.items() if not key.startswith("GANTRY_")}
    env |= {"GANTRY_HOME": str(home), "GANTRY_PORT": str(port), "PYTHONPATH": str(CHECKOUT)}
    env |= settings
    migrate(env)
    secret = manage(env, MAKE_PROJECT)
    command = [sys.executable, "-m", "ciserver.serve", app]
    with ExitStack() as stack:
        process = stack.enter_context(running(command, env, home / "web.log"))
        found = Web(f"http://127.0.0.1:{port}", home, env, secret, process.pid)
        wait_until(lambda: httpx.get(f"{found.url}/readyz", verify=False).status_code == 200)
        yield found


@contextmanager
def redis(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """At the socket where the settings have it by default."""
    place = ["--port", "0", "--unixsocket", str(home / "run" / "redis.sock")]
    command = ["redis-server", *place, "--save", "", "--dir", str(home)]
    with running(command, dict(os.environ), home / "redis.log") as process:
        wait_until((home / "run" / "redis.sock").exists)
        yield process


@contextmanager
def running(
    command: list[str], env: dict[str, str], log: Path, *, pass_fds: Collection[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=env, stdout=file, stderr=file, pass_fds=pass_fds
        )
    try:
        yield process
    finally:
        for number in (signal.SIGCONT, signal.SIGTERM):
            process.send_signal(number)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(true: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    assert callable(true)
    while True:
        with suppress(httpx.TransportError):
            if true():
                return
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
