"""The demo's parts that need no service: its commits and its comparison."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ciserver.cli.client import Client
from ciserver.cli.settings import Settings
from ciserver.config import Config
from ciserver.ops.credentials import Credentials
from ciserver.ops.demo.compare import difference
from ciserver.ops.demo.follow import follow
from ciserver.ops.demo.journey import Journey, _check_production
from ciserver.ops.demo.repository import Repository
from ciserver.ops.errors import OpsError
from ciserver.ops.launch import CHECKOUT

LOGIN = Credentials(username="admin", password="not-used", token="gantry_secret")


def test_the_first_commit_is_the_example_and_the_next_changes_one_line(config: Config) -> None:
    repository = Repository(config, "hello", LOGIN)
    first, second = repository.commit(), repository.commit()
    changed = subprocess.run(
        ["git", "diff", "--numstat", first, second],
        cwd=repository.path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert changed == "1\t1\thello/greeting.py\n"
    assert repository.title == "Say hello number 2"


def test_what_a_killed_run_left_is_made_anew_from_what_was_pushed(
    config: Config, tmp_path: Path
) -> None:
    hosted = tmp_path / "hosted.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(hosted)], check=True)
    repository = Repository(config, "hello", LOGIN)
    repository._url = str(hosted)
    first = repository.commit()
    repository.push()
    (repository.path / ".git" / "index.lock").touch()
    second = repository.commit()
    repository.push()
    command = ["git", "-C", str(hosted), "rev-list", "main"]
    assert subprocess.check_output(command, text=True).split() == [second, first]


def test_the_examples_own_tests_are_green() -> None:
    command = ["/usr/bin/python3", "-B", "-m", "tests.junit", "/dev/null"]
    done = subprocess.run(
        command, cwd=CHECKOUT / "examples/hello", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr


def journey(**cached: bool) -> Journey:
    steps = [
        {"text": text, "stage": "app", "cached": hit, "seconds": 0.5, "layer_bytes": 7200}
        for text, hit in {"FROM": False, **cached}.items()
    ]
    pipeline: dict[str, Any] = {
        "jobs": [{"kind": "build", "steps": steps}],
        "bytes_sent": 3514,
        "bytes_existing": 62_308_202,
    }
    return Journey(
        commit="0123456789",
        release="v1",
        pipeline=pipeline,
        qa={"bytes_pulled": 1200},
        prod={"bytes_pulled": None},
        production_url="http://127.0.0.1:8101",
        seconds_to_green=1.2,
        seconds_to_production=9.8,
    )


def test_the_comparison_says_what_was_built_again_and_what_travelled() -> None:
    console = Console(record=True, width=80)
    console.print(difference(journey(RUN=False, COPY=False), journey(RUN=True, COPY=False)))
    rows = [line.split() for line in console.export_text().splitlines()]
    assert ["RUN", "0.50", "s,", "7.0", "KiB", "cache"] in rows
    assert ["COPY", "0.50", "s,", "7.0", "KiB", "0.50", "s,", "7.0", "KiB"] in rows
    assert not any(row[:1] == ["FROM"] for row in rows)  # it builds nothing
    assert ["steps", "built", "2", "1"] in rows
    assert ["steps", "from", "the", "cache", "0", "1"] in rows
    assert ["sent", "to", "the", "registry", "3.4", "KiB", "3.4", "KiB"] in rows
    assert ["pulled", "by", "prod", "not", "known", "not", "known"] in rows


@contextmanager
def answering(text: str, *, log: str = "") -> Iterator[str]:
    """The address of a server that answers everything with ``text``, and asked for logs ``log``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Log-Position", "1-0")
            self.end_headers()
            self.wfile.write((log if "/log/" in self.path else text).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_production_must_show_the_commit_that_was_pushed() -> None:
    console = Console(record=True, width=80)
    commit, other = "c" * 40, "d" * 40
    with answering(f"Hello from prod: v1, commit {commit}\n") as url:
        _check_production(url, commit, console)
        with pytest.raises(OpsError, match="does not show the commit dddddddd that was pushed"):
            _check_production(url, other, console)
    with pytest.raises(OpsError):
        _check_production(url, commit, console)  # nobody answers there any more
    said = console.export_text()
    assert said.count(f"Hello from prod: v1, commit {commit}") == 2
    assert "curl: (7)" in said


def test_a_pipeline_that_is_not_green_ends_the_demo_with_its_place_and_reason() -> None:
    row = {
        "id": 1,
        "state": "failed",
        "place": "Dockerfile:5",
        "reason": "RUN useradd ended with exit code 1.",
        "page": "http://x/pipelines/1/",
        "jobs": [],
    }
    with answering(json.dumps(row)) as url, Client(Settings(url=url, token="not-used")) as api:
        with pytest.raises(OpsError) as ended:
            follow(api, Console(record=True), row)
    assert "failed: Dockerfile:5: RUN useradd ended with exit code 1." in str(ended.value)
    assert "http://x/pipelines/1/" in ended.value.next_step


def test_a_terminal_is_shown_the_log_and_how_far_each_job_is() -> None:
    steps = [{"state": "passed", "cached": hit} for hit in (True, False, True)]
    job = {"id": 7, "name": "build", "state": "passed", "steps": steps}
    row = {"id": 1, "state": "passed", "jobs": [job, {**job, "name": "unit", "state": "queued"}]}
    shown = io.StringIO()
    with answering(json.dumps(row), log="Made it.\nAll of it.\n") as url:
        with Client(Settings(url=url, token="not-used")) as api:
            assert follow(api, Console(width=100, force_terminal=True, file=shown), row) == row
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    assert "build   Made it." in said and "build   All of it." in said
    assert re.search(r"✓ build ━{24} 3/3 steps, 2 from the cache", said)
    assert "unit" not in said  # it waits


@pytest.mark.root
def test_a_demo_that_ends_early_says_why_and_its_exit_code_is_not_0(config: Config) -> None:
    home = config.home.parent / ("x" * 60)  # too long a path
    done = subprocess.run(
        [sys.executable, "-m", "ciserver.ops", "demo", "--exit"],
        cwd=CHECKOUT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "GANTRY_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    sentence, step = done.stderr.splitlines()
    assert done.returncode == 1
    assert "too long a path for the sockets" in sentence
    assert step.strip()
    assert not home.exists()
