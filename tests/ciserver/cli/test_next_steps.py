"""No refusal leaves its reader without a next step."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ciserver.cli.errors import Exit
from ciserver.cli.refusals import HELP, ITS_LOG, LISTS, LOG_IN, refusal
from tests.ciserver.cli.conftest import Gantry
from tests.test_docs import complaint

CISERVER = Path(__file__).resolve().parents[3] / "ciserver"
# What is called, and the word of it that tells what to do next.
NEXT = {
    "CliError": "next_step",
    "Refused": "hint",
    "problem": "hint",
    "problem_response": "hint",
}


def _calls(code: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in NEXT:
                yield name, node


def _without(code: str) -> list[int]:
    """Lines of refusals that leave it out, or leave it empty."""
    found = []
    for name, call in _calls(code):
        told = {word.arg: word.value for word in call.keywords}.get(NEXT[name])
        if told is None or (isinstance(told, ast.Constant) and not told.value):
            found.append(call.lineno)
    return found


def test_each_refusal_says_what_to_do_next() -> None:
    silent = [
        f"{file.relative_to(CISERVER)}:{line}"
        for file in sorted(CISERVER.rglob("*.py"))
        for line in _without(file.read_text())
    ]
    assert silent == []


def test_one_that_does_not_would_be_found() -> None:
    code = "raise Refused('No.', code='x')\nraise problems.Refused('No.', code='x', hint='')\n"
    assert _without(code + "raise Refused('No.', code='x', hint=words)\n") == [1, 2]


@pytest.mark.parametrize("line", LISTS.values())
def test_each_list_that_is_named_is_a_command(line: str) -> None:
    assert not complaint(line.split()[1:], whole=True)


def _refused(status: int, path: str, **document: str) -> str:
    request = httpx.Request("GET", f"http://gantry.example/api/v1{path}")
    answer = httpx.Response(status, request=request, json=document or None)
    return refusal(answer).next_step


def test_what_is_not_there_names_the_list_that_would_have_it() -> None:
    absent = {"detail": "There is no such thing here.", "code": "not-found", "hint": "/api/docs/"}
    for path, command in {
        "/deployments/9/": "gantry deployments",
        "/projects/moon/": "gantry projects",
        "/projects/moon/members/": "gantry members list PROJECT",
        "/projects/moon/hook-test/": "gantry projects",
        "/environments/7/secrets/A/": "gantry secrets list PROJECT",
        "/unheard-of/": "gantry projects",
    }.items():
        assert _refused(404, path, **absent) == f"See what there is: {command}"


def test_every_other_refusal_has_one_too() -> None:
    assert _refused(401, "/me/", detail="No.", code="not-authenticated", hint="Bearer") == LOG_IN
    assert _refused(409, "/x/", detail="No.", code="line.stopped", hint="Wait.") == "Wait."
    assert _refused(418, "/x/") == HELP
    assert _refused(502, "/x/") == ITS_LOG
    assert refusal(httpx.Response(502, request=httpx.Request("GET", "http://x"))).exit_code == (
        Exit.UNREACHABLE
    )


@pytest.mark.django_db(transaction=True)
def test_the_command_that_lists_is_told_in_the_terminal(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("delivery", "999")
    assert ran.exit_code == 4
    assert "See what there is: gantry deliveries" in ran.err
    assert "Nothing is" in logged_in("resume-line", "hello").err
    logged_in("stop-line", "hello", "-m", "incident")
    assert "That of hello is: gantry resume-line hello" in logged_in("resume-line", "moon").err


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/projects/moon/", 404),
        ("GET", "/api/v1/moon/", 404),
        ("DELETE", "/api/v1/projects/", 405),
        ("POST", "/api/v1/projects/", 400),
        ("GET", "/api/v1/events/?project=moon", 404),
    ],
)
def test_answers_of_the_api_that_no_service_gave_have_a_hint(
    client: Any, alice: Any, method: str, path: str, status: int
) -> None:
    client.force_login(alice)
    answer = client.generic(method, path, "{}", content_type="application/json")
    assert answer.status_code == status
    assert "/api/docs/" in answer.json()["hint"]
    client.logout()
    answer = client.get("/api/v1/projects/")
    assert (answer.status_code, "/tokens/" in answer.json()["hint"]) == (401, True)
