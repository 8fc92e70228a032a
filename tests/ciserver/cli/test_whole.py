"""What holds for every command: a JSON form, help, exit codes, pipes, completion, the reference."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup

from ciserver.cli import errors
from ciserver.cli.app import EPILOG
from ciserver.cli.errors import Exit
from tests.ciserver.cli.conftest import COMMAND, Gantry

CHECKOUT = Path(__file__).resolve().parents[3]
# They run a program of this machine in our place, or print what a shell reads.
WITHOUT_JSON = {"demo", "up", "test", "admin", "collect", "base", "completion", "run"}

COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7])(?:;[0-9]+)*m")


def _commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(command, TyperGroup):
        for word, inner in command.commands.items():
            yield from _commands(inner, f"{path} {word}".strip())
    else:
        yield path, command


COMMANDS = dict(_commands(COMMAND))


def test_every_command_that_asks_the_service_has_a_json_form() -> None:
    without = [
        name
        for name, command in COMMANDS.items()
        if "--json" not in [option for one in command.params for option in one.opts]
    ]
    assert set(without) <= WITHOUT_JSON


def test_every_command_and_option_says_what_it_is() -> None:
    silent = [name for name, command in COMMANDS.items() if not command.help]
    for name, command in COMMANDS.items():
        silent += [
            f"{name} {one.name}"
            for one in command.params
            if one.param_type_name == "option" and not one.help
        ]
    assert silent == []


def test_the_exit_codes_told_are_those_that_there_are() -> None:
    for code in Exit:
        assert f"\n{code.value}  " in str(errors.__doc__)
        assert f"{code.value} " in EPILOG


def _made_by(script: str) -> Any:
    spec = importlib.util.spec_from_file_location(script, CHECKOUT / "docs" / f"{script}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_commands_say() -> None:
    said = (CHECKOUT / "docs" / "cli.md").read_text()
    made = _made_by("reference").reference()
    assert said == made, "Write it again: .venv/bin/python docs/reference.py"


def test_the_manual_is_what_the_example_and_the_schema_say() -> None:
    said = (CHECKOUT / "docs" / "gantry-yml.md").read_text()
    made = _made_by("manual").manual()
    assert said == made, "Write it again: .venv/bin/python docs/manual.py"


def test_the_manual_tells_every_key_of_the_schema() -> None:
    said = (CHECKOUT / "docs" / "gantry-yml.md").read_text()
    schema = json.loads((CHECKOUT / "docs" / "gantry.schema.json").read_text())
    told = set(re.findall(r"^\| `([a-z_]+)` \|", said, re.MULTILINE))
    headings = set(re.findall(r"`([a-z]+)`", " ".join(re.findall(r"^## .*", said, re.MULTILINE))))
    assert headings == set(schema["properties"])
    assert {key for one in schema["$defs"].values() for key in one.get("properties", {})} == told


def _run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ciserver.cli", *words],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TERM": "xterm-256color"} | env,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.django_db(transaction=True)
def test_in_a_pipe_there_is_no_colour_and_no_word_on_what_is_next(
    live_server: Any, token: str, history: Any
) -> None:
    env = {"GANTRY_URL": live_server.url, "GANTRY_TOKEN": token}
    ran = _run("pipelines", "hello", **env)
    assert "failed" in ran.stdout
    assert "\x1b" not in ran.stdout + ran.stderr
    assert "Next:" not in ran.stdout + ran.stderr
    words = {"COMP_WORDS": "gantry pipelines he", "COMP_CWORD": "2"}
    assert _run(**env, **words, _GANTRY_COMPLETE="complete_bash").stdout.split() == ["hello"]


def _at_a_terminal(*words: str, **env: str) -> str:
    """What somebody sees at one of 80 columns; more than that may be in a line of theirs."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    ran = subprocess.Popen(
        [sys.executable, "-m", "ciserver.cli", *words],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TERM": "xterm-256color"} | env,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # EIO: nobody has the other end open any more
        while piece := os.read(ours, 65536):
            seen += piece
    os.close(ours)
    ran.wait(60)
    return seen.decode()


@pytest.mark.django_db(transaction=True)
def test_at_a_terminal_there_is_colour_unless_no_color_or_a_dumb_one_says_otherwise(
    live_server: Any, token: str, history: Any
) -> None:
    """https://no-color.org: set and not empty. Bold and dim are no colours."""
    env = {"GANTRY_URL": live_server.url, "GANTRY_TOKEN": token}
    for words in (["pipelines", "hello"], ["pipelines", "--no-such"], ["promote", "x", "v1", "qa"]):
        assert COLOUR.search(_at_a_terminal(*words, **env)), words
        for env_of_plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            plain = _at_a_terminal(*words, **env | env_of_plain)
            assert plain and not COLOUR.search(plain), (words, env_of_plain)
            if env_of_plain == {"TERM": "dumb"} and words == ["pipelines", "hello"]:
                assert "\x1b" not in plain
    as_json = _at_a_terminal("pipelines", "hello", "--json", **env)
    assert json.loads(as_json)


@pytest.mark.django_db(transaction=True)
def test_a_reader_that_goes_away_ends_it_without_a_word(
    live_server: Any, token: str, history: Any
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for words in (["pipelines"], ["pipelines", "--json"], ["completion", "bash"]):
        ran = subprocess.run(
            [sys.executable, "-m", "ciserver.cli", *words],
            cwd=CHECKOUT,
            env=os.environ | {"GANTRY_URL": live_server.url, "GANTRY_TOKEN": token},
            check=False,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
        )
        assert (ran.returncode, ran.stderr) == (0, b""), words
    os.close(writing)


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["logs", "hello", "-f"]])
def test_ctrl_c_is_exit_code_130_without_a_traceback(words: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        address = f"http://127.0.0.1:{service.getsockname()[1]}"
        waits = subprocess.Popen(
            # What a shell's background job starts would ignore it.
            ["env", "--default-signal=INT", sys.executable, "-m", "ciserver.cli", *words],
            cwd=CHECKOUT,
            env=os.environ | {"GANTRY_URL": address, "GANTRY_TOKEN": "gantry_any"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = service.accept()  # and answers nothing
        with connection:
            waits.send_signal(signal.SIGINT)
            out, err = waits.communicate(timeout=60)
    assert (waits.returncode, out) == (130, "")
    assert "Traceback" not in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_asks_us(gantry: Gantry, shell: str) -> None:
    ran = gantry("completion", shell)
    assert ran.exit_code == 0
    assert "_GANTRY_COMPLETE" in ran.out


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("words", "path"),
    [
        ([], "/"),
        (["hello"], "/projects/hello/"),
        (["hello", "2"], "/projects/hello/pipelines/2/"),
        (["hello", "v1"], "/projects/hello/releases/1/"),
        (["hello", "qa"], "/projects/hello/environments/qa/"),
    ],
)
def test_open_prints_the_page_where_there_is_no_terminal(
    logged_in: Gantry, history: Any, words: list[str], path: str
) -> None:
    assert logged_in("open", *words).out.strip().endswith(path)


@pytest.mark.django_db(transaction=True)
def test_the_tests_of_a_pipeline_begin_with_those_that_failed(
    logged_in: Gantry, history: Any
) -> None:
    rows = json.loads(logged_in("tests", "hello", "--json").out)
    assert [row["outcome"] for row in rows[:3]] == ["failed", "failed", "passed"]
    assert len(rows) == 31
    assert len(json.loads(logged_in("tests", "hello", "2", "--failed", "--json").out)) == 2
    assert json.loads(logged_in("tests", "hello", "--flaky", "--json").out) == []
    assert "test_greets_by_name" in logged_in("tests", "hello", "--failed").out


@pytest.mark.django_db(transaction=True)
def test_failures_older_than_the_newest_cases_are_shown_first(
    logged_in: Gantry, history: Any
) -> None:
    from ciserver.pipelines.models import JobKind
    from tests.ciserver.pages import seeding

    pipeline = seeding.make_pipeline(history, 3, state="failed")
    broken = seeding.make_job(pipeline, 1, "slow", JobKind.TEST)
    broken.cases.create(suite="", name="test_setup", outcome="error", seconds=0)
    seeding.make_test(pipeline, failing=1, total=250)
    rows = json.loads(logged_in("tests", "hello", "3", "--failed", "--json").out)
    assert [row["outcome"] for row in rows] == ["failed", "error"]
    rows = json.loads(logged_in("tests", "hello", "3", "--json").out)
    assert len(rows) == 200
    assert [row["outcome"] for row in rows[:3]] == ["failed", "error", "passed"]
