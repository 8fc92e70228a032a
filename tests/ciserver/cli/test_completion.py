"""The tab key: commands, and names that only the service knows."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.ciserver.cli.conftest import Gantry

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture
def bin_with_gantry(tmp_path: Path) -> Path:
    """A folder for PATH, whose ``gantry`` is ours."""
    (tmp_path / "gantry").write_text(
        f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -m ciserver.cli "$@"\n'
    )
    (tmp_path / "gantry").chmod(0o755)
    return tmp_path


def test_bash_takes_the_script_and_completes_commands(bin_with_gantry: Path) -> None:
    script = (
        'eval "$(gantry completion bash)"; COMP_WORDS=(gantry stat); COMP_CWORD=1;'
        ' _gantry_completion gantry; echo "${COMPREPLY[@]}"'
    )
    env = {"PATH": f"{bin_with_gantry}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "-c", script], env=env, check=False, capture_output=True, text=True
    )
    assert ran.stdout.split() == ["status", "statuses"], ran.stderr


@pytest.mark.django_db(transaction=True)
def test_names_are_completed_that_fit_what_was_typed_before(
    logged_in: Gantry, history: Any, alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.ciserver.pages import seeding

    shop = seeding.make_project("shop", alice)
    seeding.make_environments(shop, "stage")
    seeding.make_release(seeding.make_passed(shop, 7), 30)
    monkeypatch.setenv("_GANTRY_COMPLETE", "complete_bash")

    def completed(words: str) -> set[str]:
        """What the last of the words, which may be empty, becomes."""
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        return set(logged_in().out.split())

    assert completed("gantry env hello ") == {"qa", "prod"}
    assert completed("gantry promote shop ") == {"v30"}
    assert completed("gantry promote hello v1 p") == {"prod"}
    assert completed("gantry promote hello v1 x") == set()
    assert completed("gantry ps ") == {"hello@qa", "hello@prod", "shop@stage"}
    assert completed("gantry ps hello@p") == {"hello@prod"}
    assert completed("gantry ps moon@") == set()
    assert completed("gantry logs ") == {"hello", "shop"}
    assert completed("gantry logs shop@") == {"shop@stage"}
    assert completed("gantry deployments shop --environment ") == {"stage"}


class Terminal:
    """That of an interactive bash."""

    def __init__(self, env: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self._shell = subprocess.Popen(
            ["bash", "--norc", "-i"], env=env, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._rest = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()
        os.close(self._ours)

    def type(self, words: str) -> None:
        os.write(self._ours, words.encode())

    def read_to(self, what: str, seconds: float = 60) -> bool:
        """Whether it is said; what was said before it is forgotten."""
        deadline = time.monotonic() + seconds
        while what not in self._rest:
            if not select.select([self._ours], [], [], max(0, deadline - time.monotonic()))[0]:
                return False
            self._rest += os.read(self._ours, 65536).decode(errors="replace")
        self._rest = self._rest.partition(what)[2]
        return True


@pytest.mark.django_db(transaction=True)
def test_bash_completes_behind_the_at(
    live_server: Any, token: str, history: Any, bin_with_gantry: Path
) -> None:
    env = {
        "PATH": f"{bin_with_gantry}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "ready> ",
        "GANTRY_URL": live_server.url, "GANTRY_TOKEN": token, "HOME": str(bin_with_gantry),
    }  # fmt: skip
    with Terminal(env) as terminal:
        terminal.type('eval "$(gantry completion bash)"; echo lo""aded\n')
        assert terminal.read_to("loaded\r\n")
        assert terminal.read_to("ready> ")
        terminal.type("gantry ps hello@pr")
        assert terminal.read_to("hello@pr")
        # On a machine that is busy the service may not have answered within the two seconds.
        for _ in range(5):
            terminal.type("\t")
            if terminal.read_to("od ", seconds=10):
                return
        pytest.fail("It was not completed.")
