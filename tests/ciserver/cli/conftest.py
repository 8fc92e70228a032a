"""The client as alice runs it, against a real server with a little history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.main import get_command

from ciserver.cli.__main__ import main
from ciserver.cli.app import app


@dataclass(frozen=True)
class Ran:
    exit_code: int
    out: str
    err: str


Gantry = Callable[..., Ran]
# What ``app`` makes of its hundred functions whenever it is called: it takes a twentieth of a
# second, each process of its own that test_whole starts does it, and it is always the same.
COMMAND = get_command(app)


@pytest.fixture
def gantry(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Gantry:
    """``gantry("status", "--json")`` runs the client in this process; nobody is logged in."""
    monkeypatch.setattr("ciserver.cli.__main__.app", COMMAND)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("GANTRY_URL", "GANTRY_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> Ran:
        monkeypatch.setattr("sys.argv", ["gantry", *words])
        capsys.readouterr()
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def token(alice: Any) -> str:
    from ciserver.accounts.models import Scope, Token

    return Token.make(user=alice, name="client", scope=Scope.WRITE)[1]


@pytest.fixture
def logged_in(gantry: Gantry, live_server: Any, token: str) -> Gantry:
    assert gantry("login", live_server.url, "--token", token).exit_code == 0
    return gantry


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path of each request that the client sent meanwhile."""
    paths: list[str] = []
    send = httpx.Client.send

    def noted(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        paths.append(request.url.path.removeprefix("/api/v1"))
        return send(client, request, **options)

    monkeypatch.setattr(httpx.Client, "send", noted)
    return paths


@pytest.fixture
def history(alice: Any) -> Any:
    """Project hello: #1 passed and is v1 in qa, #2 failed; prod is empty."""
    from tests.ciserver.pages import seeding

    hello = seeding.make_project("hello", alice)
    qa, _ = seeding.make_environments(hello, "qa", "prod")
    seeding.deploy(seeding.make_release(seeding.make_passed(hello, 1), 1), qa)
    seeding.make_failed(hello, 2)
    return hello
