"""A real web process with a database of its own, and a stage hand that works beside it.

The stage hand is a second process, as a worker would be: it writes rows and logs while a
page is open. The test's own process keeps no connection to that database.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from ciserver.lib.keys import ensure_keys
from runtime import syscalls
from runtime.network.directory import in_thread
from tests.database import migrate
from tests.webserver import redis as redis_at
from tests.webserver import running

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "alice-password-1"
Cookies = dict[str, str]


@dataclass
class Stage:
    """A running service. Calling a name calls the function of ``scenes`` in the stage hand.

    ``netns``: the network namespace in which it lives, by default this process's. ``names``:
    what ``addresses`` call rows that a scene made.
    """

    url: str
    home: Path
    web: subprocess.Popen[bytes]
    hand: subprocess.Popen[str]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    netns: Path = Path("/proc/self/ns/net")
    names: dict[str, str] = field(default_factory=dict)

    def __call__(self, scene: str, **arguments: Any) -> Any:
        assert self.hand.stdin and self.hand.stdout
        print(json.dumps([scene, arguments]), file=self.hand.stdin, flush=True)
        answer = json.loads(self.hand.stdout.readline())
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["value"]

    def cookies(self, name: str = "alice") -> Cookies:
        """A session of ``name``, as a browser would hold it."""
        return {"gantry_session": self("session", name=name)}


@contextmanager
def open_stage(home: Path, *, redis: bool = True, netns: Path = Stage.netns) -> Iterator[Stage]:
    """Start everything, wait until it answers, and stop it all at the end."""
    with ExitStack() as stack:
        for name in ("db", "run", "logs", "repositories", "mirrors"):
            (home / name).mkdir(parents=True)
        ensure_keys(home / "keys")
        listener = stack.enter_context(_socket_in(netns))
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        port = listener.getsockname()[1]
        env = {key: value for key, value in os.environ.items() if not key.startswith("GANTRY_")}
        env |= {"GANTRY_HOME": str(home), "GANTRY_PORT": str(port), "PYTHONPATH": str(ROOT)}
        if redis:
            stack.enter_context(redis_at(home))
        migrate(env)
        collect = [sys.executable, "manage.py", "collectstatic", "--noinput", "-v0"]
        subprocess.run(collect, cwd=ROOT, env=env, check=True)
        log = home / "web.log"
        serve = ["nsenter", f"--net={netns}", sys.executable, "-m", "ciserver.serve"]
        fd = listener.fileno()
        listening = env | {"LISTEN_FD": str(fd)}
        web = stack.enter_context(running(serve, listening, log, pass_fds=[fd]))
        hand = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.ciserver.pages.scenes"],
                cwd=ROOT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(hand.terminate)
        stage = Stage(f"http://127.0.0.1:{port}", home, web, hand, log, env, netns)
        _wait_for(stage)
        yield stage


@contextmanager
def another_web(stage: Stage) -> Iterator[Stage]:
    """A second web process over the same rows and logs, which a test may end."""
    port, log = _free_port(), stage.home / "another-web.log"
    with running(_uvicorn(port), stage.env, log) as web:
        own = replace(stage, url=f"http://127.0.0.1:{port}", web=web, log=log)
        _wait_for(own)
        yield own


def _uvicorn(port: int) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", "ciserver.asgi:application"]
    return [*command, "--port", str(port), "--timeout-graceful-shutdown", "20"]


def _wait_for(stage: Stage) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError, HTTPException):
            if _status(stage) == 200:
                return
        if stage.web.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"The web process did not answer:\n{stage.log.read_text()[-3000:]}")


def _status(stage: Stage) -> int:
    """Of its page to sign in."""
    address = stage.url.removeprefix("http://")
    with _socket_in(stage.netns) as sock:
        sock.settimeout(60)
        host, _, port = address.partition(":")
        sock.connect((host, int(port)))
        connection = HTTPConnection(address)
        connection.sock = sock
        connection.request("GET", "/login/")
        return connection.getresponse().status


def _socket_in(netns: Path) -> socket.socket:
    """A TCP socket stays in the namespace where it was made, whoever uses it."""
    made = []

    def make() -> None:
        fd = os.open(netns, os.O_RDONLY)
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
        finally:
            os.close(fd)
        made.append(socket.socket())

    in_thread(make)
    return made[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
