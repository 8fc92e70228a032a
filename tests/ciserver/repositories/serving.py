"""A real server in a process of its own on the tests' database, and a real git beside it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.db import connection


@dataclass(frozen=True)
class Server:
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def git_url(self, slug: str = "hello", token: str = "") -> str:
        who = f"anyone:{token}@" if token else ""
        return f"http://{who}127.0.0.1:{self.port}/git/{slug}.git"


@contextmanager
def serve(**settings: str) -> Iterator[Server]:
    port = _free_port()
    env = os.environ | {
        "GANTRY_PORT": str(port),
        "GANTRY_DATABASE_URL": f"sqlite://{connection.settings_dict['NAME']}",
    }
    command = [sys.executable, "-m", "uvicorn", "ciserver.asgi:application", "--port", str(port)]
    command += ["--no-access-log", "--lifespan", "off", "--log-level", "warning"]
    process = subprocess.Popen(command, env=env | settings)
    try:
        _wait(port, process)
        yield Server(port, process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def no_repositories() -> Iterator[None]:
    """A rolled back test gives its project's id, and so its repository, to the next one."""
    yield
    for folder in (settings.GANTRY.repositories, settings.GANTRY.mirrors):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def loopback_is_outside(settings: Any) -> None:
    """Outside repositories of these tests are on this machine."""
    allowed = (ip_network("127.0.0.0/8"),)
    settings.GANTRY = dataclasses.replace(settings.GANTRY, fetch_allow=allowed)


def git(*arguments: str, cwd: Path | None = None, ok: bool = True, **more: str) -> str:
    """What git said, on both streams. It never asks and knows nothing of this machine's user."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Alice Example",
        "GIT_AUTHOR_EMAIL": "alice@example.org",
        "GIT_COMMITTER_NAME": "Alice Example",
        "GIT_COMMITTER_EMAIL": "alice@example.org",
        **more,
    }
    done = subprocess.run(
        ["git", "-c", "init.defaultBranch=main", "-c", "core.compression=0", *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, said
    return said.strip()


def commit(
    work: Path, files: dict[str, str | bytes], message: str = "Say hello", **env: str
) -> str:
    """A commit of ``files`` in the work tree ``work``, made if it is not there; its sha."""
    if not (work / ".git").exists():
        git("init", "--quiet", str(work))
    for name, content in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    git("add", "--all", cwd=work)
    git("commit", "--quiet", "--allow-empty", "-m", message, cwd=work, **env)
    return git("rev-parse", "HEAD", cwd=work)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "the server ended"
        try:
            httpx.get(f"http://127.0.0.1:{port}/git/", timeout=2, verify=False)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server does not answer")
