"""Mirrors of outside repositories: here the outside is a server on this machine."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ciserver.projects.models import Project
from ciserver.repositories.errors import BadName, FetchFailed
from ciserver.repositories.git import PROXIES, commit_info, fetch, git_dir, heads
from tests.ciserver.repositories.serving import Server, commit, git
from tests.together import together

pytestmark = pytest.mark.usefixtures("loopback_is_outside", "db")


@pytest.fixture
def upstream() -> Iterator[Path]:
    """A bare repository outside, which the test may push to."""
    folder = Path(tempfile.mkdtemp(prefix="gantry-outside-"))
    git("init", "--quiet", "--bare", str(folder / "x.git"))
    git("config", "receive.updateServerInfo", "true", cwd=folder / "x.git")
    git("update-server-info", cwd=folder / "x.git")
    yield folder / "x.git"
    shutil.rmtree(folder)


@pytest.fixture
def forge(upstream: Path) -> Iterator[ThreadingHTTPServer]:
    """It over HTTP, to whoever asks."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with _listening(partial(Handler, directory=str(upstream.parent))) as server:
        yield server


@pytest.fixture
def outside(forge: ThreadingHTTPServer) -> Project:
    url = f"http://127.0.0.1:{forge.server_port}/x.git"
    return Project.objects.create(slug="outside", clone_url=url)


def test_a_ref_is_fetched_into_the_mirror(upstream: Path, outside: Project, tmp_path: Path) -> None:
    sha = commit(tmp_path, {"a": "1"}, "One")
    git("push", str(upstream), "main", cwd=tmp_path)

    assert fetch(outside, "refs/heads/main") == sha
    assert commit_info(git_dir(outside), sha).subject == "One"
    assert heads(git_dir(outside)) == {"refs/heads/main": sha}


@pytest.mark.root
def test_what_is_fetched_belongs_to_the_group_of_the_folder(
    upstream: Path, outside: Project, tmp_path: Path
) -> None:
    """The web process asks mirrors for a branch's head and its gantry.yml, and is not root."""
    folder = git_dir(outside).parent
    before = folder.stat()
    os.chown(folder, 0, 1)
    folder.chmod(0o2750)
    try:
        commit(tmp_path, {"a/b": "1"}, "One")
        git("push", str(upstream), "main", cwd=tmp_path)
        fetch(outside, "refs/heads/main")
        found = [git_dir(outside), *git_dir(outside).rglob("*")]
        assert {path.stat().st_gid for path in found} == {1}
        assert all(path.stat().st_mode & 0o040 for path in found)
    finally:
        os.chown(folder, before.st_uid, before.st_gid)
        folder.chmod(before.st_mode & 0o7777)


def test_a_ref_that_was_rewritten_is_fetched_again(
    upstream: Path, outside: Project, tmp_path: Path
) -> None:
    for message in ("One", "Other"):
        git("checkout", "--quiet", "--orphan", message, cwd=tmp_path) if message != "One" else None
        sha = commit(tmp_path, {"a": message}, message)
        git("push", "--force", str(upstream), "HEAD:main", cwd=tmp_path)

        assert fetch(outside, "refs/heads/main") == sha


def test_two_fetches_at_once_wait_for_each_other(
    upstream: Path, outside: Project, tmp_path: Path
) -> None:
    sha = commit(tmp_path, {"a": "1"})
    git("push", str(upstream), "main", "main:other", cwd=tmp_path)
    refs = ["refs/heads/main", "refs/heads/other"] * 2

    assert together(lambda ref: fetch(outside, ref), refs) == [sha] * 4


def test_a_ref_that_is_gone_will_not_come_by_waiting(
    upstream: Path, outside: Project, tmp_path: Path
) -> None:
    commit(tmp_path, {"a": "1"})
    git("push", str(upstream), "main", cwd=tmp_path)

    with pytest.raises(FetchFailed, match="couldn't find remote ref") as caught:
        fetch(outside, "refs/heads/gone")

    assert not caught.value.temporary


def test_a_repository_that_asks_who_we_are_is_not_asked_again(server: Server, project: Any) -> None:
    outside = Project.objects.create(slug="outside", clone_url=server.git_url())

    with pytest.raises(FetchFailed) as caught:
        fetch(outside, "refs/heads/main")

    assert not caught.value.temporary


def test_a_password_that_an_old_address_holds_is_neither_used_nor_told(upstream: Path) -> None:
    url = "http://anyone:sesame@127.0.0.1:1/x.git"
    outside = Project.objects.create(slug="outside", clone_url=url)

    with pytest.raises(FetchFailed, match=r"Nothing was fetched\. .*Leave out all up to") as caught:
        fetch(outside, "refs/heads/main")

    assert not caught.value.temporary
    assert "sesame" not in str(caught.value)


def test_a_host_that_is_not_public_is_not_asked(
    outside: Project, forge: ThreadingHTTPServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GANTRY = replace(settings.GANTRY, fetch_allow=())
    asked = _requests(forge, monkeypatch)
    lookup = socket.getaddrinfo
    # A name that anyone may put into a name server.
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **how: lookup("::1", *rest, **how))
    for host in ("127.0.0.1", "rebound.example"):
        outside.clone_url = f"http://{host}:{forge.server_port}/x.git"

        with pytest.raises(FetchFailed, match=r"Nothing was fetched.*not public") as caught:
            fetch(outside, "refs/heads/main")

        assert not caught.value.temporary
    assert asked == []


def test_git_asks_the_address_that_was_checked_whatever_its_name_means_by_then(
    upstream: Path,
    outside: Project,
    forge: ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    sha = commit(tmp_path, {"a": "1"})
    git("push", str(upstream), "main", cwd=tmp_path)
    lookup = socket.getaddrinfo

    def once(host: str, *rest: Any, **how: Any) -> Any:
        return lookup("127.0.0.1" if host == "forge.invalid" else host, *rest, **how)

    monkeypatch.setattr(socket, "getaddrinfo", once)
    outside.clone_url = f"http://forge.invalid:{forge.server_port}/x.git"

    assert fetch(outside, "refs/heads/main") == sha


def test_a_name_that_nobody_knows_may_be_known_later(
    outside: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    outside.clone_url = "https://forge.invalid/x.git"

    with pytest.raises(FetchFailed, match=r"forge\.invalid is not known") as caught:
        fetch(outside, "refs/heads/main")

    assert caught.value.temporary


def test_an_unreachable_server_may_come_back(db: None) -> None:
    outside = Project.objects.create(slug="outside", clone_url="http://127.0.0.1:1/x.git")

    with pytest.raises(FetchFailed, match="could not be fetched from") as caught:
        fetch(outside, "refs/heads/main")

    assert caught.value.temporary


@pytest.mark.parametrize(
    "url",
    [
        "--upload-pack=touch /tmp/gantry-pwned",
        "ext::sh -c touch% /tmp/gantry-pwned",
        "file:///",
        "/",
    ],
)
def test_an_address_of_another_kind_runs_nothing(db: None, url: str) -> None:
    outside = Project.objects.create(slug="outside", clone_url=url)

    with pytest.raises(FetchFailed):
        fetch(outside, "refs/heads/main")

    assert not Path("/tmp/gantry-pwned").exists()


def test_a_ref_that_is_an_option_is_refused(db: None) -> None:
    outside = Project.objects.create(slug="outside", clone_url="https://example.org/x.git")

    with pytest.raises(BadName):
        fetch(outside, "--upload-pack=touch /tmp/gantry-pwned")


@pytest.fixture
def redirecting() -> Iterator[Callable[[str], str]]:
    target = ""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    def to(url: str) -> str:
        nonlocal target
        target = url
        return f"http://127.0.0.1:{listener.server_port}/x.git"

    with _listening(Handler) as listener:
        yield to


def test_a_redirect_is_not_followed(
    redirecting: Callable[[str], str], upstream: Path, outside: Project, tmp_path: Path
) -> None:
    commit(tmp_path, {"a": "1"})
    git("push", str(upstream), "main", cwd=tmp_path)
    target = f"{outside.clone_url}/info/refs?service=git-upload-pack"
    for where in (target, "file:///etc", "ext::id"):
        outside.clone_url = redirecting(where)

        with pytest.raises(FetchFailed):
            fetch(outside, "refs/heads/main")

        assert heads(git_dir(outside)) == {}


@contextmanager
def _listening(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _requests(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(server, "process_request", lambda *request: seen.append(request))
    return seen
