"""Every line that a web process writes is one JSON object, whatever a request says and breaks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ciserver.lib.keys import ensure_keys
from tests.webserver import CHECKOUT, free_port, running, wait_until

FORGED = '{"level": "critical", "message": "forged"}'
CRLF = "%0d%0a"


def records(path: Path) -> list[dict[str, Any]]:
    """Raises ValueError for a line that is no JSON object."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(isinstance(one, dict) and one["message"] != "forged" for one in found)
    return found


def ask(port: int, start: str, *headers: bytes, body: bytes = b"") -> None:
    """A request that no client would send."""
    lines = [f"{start} HTTP/1.1".encode(), b"Host: 127.0.0.1", *headers]
    lines += [b"Connection: close", f"Content-Length: {len(body)}".encode(), b"", body]
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(b"\r\n".join(lines))
        while sock.recv(65536):
            pass


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Its port and its log. It has no tables: nothing here asks for any."""
    ensure_keys(tmp_path / "keys")
    port, log = free_port(), tmp_path / "web.log"
    env = environment(tmp_path, GANTRY_PORT=str(port))
    command = [sys.executable, "-m", "ciserver.serve", "tests.ops.faulty:application"]
    with running(command, env, log):
        wait_until(lambda: "Uvicorn running" in log.read_text())
        yield port, log
    assert records(log)[-1]["logger"] == "uvicorn.error"  # it has said that it ends


def environment(home: Path, **variables: str) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("GANTRY_")}
    return env | {"GANTRY_HOME": str(home), "PYTHONPATH": str(CHECKOUT)} | variables


def test_no_fault_and_no_request_makes_a_line_that_is_not_json(faulty: tuple[int, Path]) -> None:
    port, log = faulty
    push = {
        "ref": f"refs/heads/b\r\n{FORGED}",
        "head_commit": {"message": f"Subject\r\n\r\n{FORGED}"},
    }
    bodies = [json.dumps(push).encode(), f"{push['ref']}\r\n{FORGED}".encode()]
    agent = f"User-Agent: x\x85{FORGED}".encode("latin-1")
    for body in bodies:
        ask(port, "POST /hooks/github/hello/", agent, body=body)
    ask(port, f"POST /git/hello.git/git-receive-pack{CRLF}{FORGED.replace(' ', '%20')}", agent)
    ask(port, f"GET /nothing{CRLF}{FORGED.replace(' ', '%20')}", agent)
    ask(port, "GET /", f"X-Bad: a\r{FORGED}".encode())
    ask(port, "GET /elsewhere")
    wait_until(lambda: "of a warning" in log.read_text() and "of a thread" in log.read_text())
    found = records(log)
    faults = [one["exception"] for one in found if "RuntimeError" in one.get("exception", "")]
    hooks = [fault for fault in faults if "RuntimeError: /hooks/" in fault]
    assert [body.decode() in fault for body, fault in zip(bodies, hooks, strict=True)] == [True] * 2
    assert f"x\x85{FORGED}" in hooks[0]
    assert "Traceback (most recent call last)" in hooks[0]
    assert any(f"/git-receive-pack\r\n{FORGED}" in fault for fault in faults)
    assert any("of a thread\nand more" in fault for fault in faults)
    assert sum("in ASGI" in one["message"] for one in found) == 5  # pages have no tables, either


@pytest.mark.parametrize(
    ("app", "variables"), [("nowhere:app", {}), ("x", {"GANTRY_PORT": "many"})]
)
def test_one_that_cannot_start_says_so_in_one_line(
    tmp_path: Path, app: str, variables: dict[str, str]
) -> None:
    env = environment(tmp_path, **variables)
    with (log := tmp_path / "web.log").open("wb") as file:
        command = [sys.executable, "-m", "ciserver.serve", app]
        done = subprocess.run(command, env=env, stdout=file, stderr=file, cwd=CHECKOUT, check=False)
    assert done.returncode != 0
    assert [one["level"] in {"error", "critical"} for one in records(log)] == [True]
