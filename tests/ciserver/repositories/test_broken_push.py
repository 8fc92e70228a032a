"""Pushes that break off, unfold, or never end: nothing of them stays on the disk or in memory."""

from __future__ import annotations

import asyncio
import base64
import gzip
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import OperationalError

from ciserver.repositories.git import create_hosted, git_dir, heads, tidy_hosted
from ciserver.repositories.http import GitHttp, app
from tests.ciserver.repositories.serving import Server, commit, git

MIB = 1024 * 1024
KIND = {"Content-Type": "application/x-git-receive-pack-request"}


@pytest.fixture
def token(bob: Any, token_of: Callable[..., str]) -> str:
    return token_of(bob)


def line(text: bytes) -> bytes:
    return b"%04x" % (len(text) + 4) + text


def command(sha: str, ref: str = "refs/heads/x") -> bytes:
    return f"{'0' * 40} {sha} {ref}".encode()


def test_a_push_that_breaks_off_leaves_nothing_on_the_disk(
    server: Server, project: Any, token: str, tmp_path: Path
) -> None:
    sha = commit(tmp_path, {"big": os.urandom(8 * MIB)} | {str(n): str(n) for n in range(150)})
    words = ["git", "pack-objects", "--revs", "--stdout", "-q"]
    made = subprocess.run(words, cwd=tmp_path, input=b"main\n", capture_output=True, check=True)
    body = line(command(sha) + b"\0 report-status") + b"0000" + made.stdout
    login = base64.b64encode(f"x:{token}".encode()).decode()
    head = (
        "POST /git/hello.git/git-receive-pack HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Basic {login}\r\nContent-Type: {KIND['Content-Type']}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    place = create_hosted(project)

    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(head.encode() + body[: len(body) * 9 // 10])
        assert _eventually(lambda: _halves(place) != [])

    assert _eventually(lambda: _halves(place) == [])
    assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) < 100_000


def test_what_a_killed_one_left_is_removed_once_it_cannot_go_on(project: Any) -> None:
    place = create_hosted(project)
    for name in ("tmp_objdir-incoming-old", "tmp_objdir-incoming-new"):
        (place / "objects" / name / "pack").mkdir(parents=True)
        (place / "objects" / name / "pack" / "tmp_pack_x").write_bytes(b"PACK")
    old = time.time() - 3 * 3600
    os.utime(place / "objects" / "tmp_objdir-incoming-old", (old, old))

    tidy_hosted()

    assert _halves(place) == ["tmp_objdir-incoming-new"]


def test_a_compressed_push_is_refused_before_git_unfolds_it(
    server: Server, project: Any, token: str
) -> None:
    body = gzip.compress(line(command("a" * 40)) * 100_000)

    answer = _push(server, token, body, {"Content-Encoding": "gzip"})

    assert answer.status_code == 415
    assert "Push with git itself." in answer.text


def test_a_push_of_names_without_end_is_cut_off(server: Server, project: Any, token: str) -> None:
    project.max_push_mib = 1
    project.save()
    lines, sent = line(command("a" * 40)) * 10_000, 0

    def body() -> Any:
        nonlocal sent
        while sent < 400 * MIB:
            sent += len(lines)
            yield lines

    with pytest.raises(httpx.TransportError):
        _push(server, token, body())

    assert sent < 120 * MIB
    assert heads(git_dir(project)) == {}


def test_while_the_database_is_away_git_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Any:
        raise OperationalError("away")

    monkeypatch.setattr(app, "admit", away)
    served: Any = GitHttp(_nothing, ingest=_nothing, follow=_nothing)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(served)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/git/hello.git/info/refs?service=git-upload-pack")

    answer = asyncio.run(ask())
    assert answer.status_code == 503
    assert "The database does not answer just now; try again soon." in answer.text


def test_a_push_after_all_that_goes_through(
    server: Server, project: Any, token: str, tmp_path: Path
) -> None:
    sha = commit(tmp_path, {"a": "1"})
    git("push", server.git_url(token=token), "main", cwd=tmp_path)
    assert heads(git_dir(project)) == {"refs/heads/main": sha}


def _nothing(*_: Any, **__: Any) -> Any:
    raise AssertionError("not asked")


def _push(server: Server, token: str, body: Any, headers: Any = ()) -> httpx.Response:
    url = f"{server.git_url()}/git-receive-pack"
    sent = KIND | dict(headers)
    return httpx.post(url, content=body, auth=("x", token), headers=sent, timeout=60)


def _halves(place: Path) -> list[str]:
    return [path.name for path in (place / "objects").glob("tmp_objdir-*")]


def _eventually(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
