"""Mirrors of outside repositories: here the outside is our own server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ciserver.projects.models import Project
from ciserver.repositories.errors import BadName, FetchFailed
from ciserver.repositories.git import commit_info, fetch, git_dir, heads
from tests.ciserver.repositories.serving import Server, commit, git


@pytest.fixture
def upstream(server: Server, project: Any, bob: Any, token_of: Callable[..., str]) -> str:
    return server.git_url(token=token_of(bob))


@pytest.fixture
def outside(upstream: str) -> Project:
    return Project.objects.create(slug="outside", clone_url=upstream)


def test_a_ref_is_fetched_into_the_mirror(upstream: str, outside: Project, tmp_path: Path) -> None:
    sha = commit(tmp_path, {"a": "1"}, "One")
    git("push", upstream, "main", cwd=tmp_path)

    assert fetch(outside, "refs/heads/main") == sha
    assert commit_info(git_dir(outside), sha).subject == "One"
    assert heads(git_dir(outside)) == {"refs/heads/main": sha}


def test_a_ref_that_was_rewritten_is_fetched_again(
    upstream: str, outside: Project, tmp_path: Path
) -> None:
    for message in ("One", "Other"):
        git("checkout", "--quiet", "--orphan", message, cwd=tmp_path) if message != "One" else None
        sha = commit(tmp_path, {"a": message}, message)
        git("push", "--force", upstream, "HEAD:main", cwd=tmp_path)

        assert fetch(outside, "refs/heads/main") == sha


def test_two_fetches_at_once_wait_for_each_other(
    upstream: str, outside: Project, tmp_path: Path
) -> None:
    sha = commit(tmp_path, {"a": "1"})
    git("push", upstream, "main", "main:other", cwd=tmp_path)
    got: list[str] = []
    refs = ["refs/heads/main", "refs/heads/other"] * 2

    threads = [threading.Thread(target=lambda r=ref: got.append(fetch(outside, r))) for ref in refs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert got == [sha] * 4


def test_a_ref_that_is_gone_will_not_come_by_waiting(
    upstream: str, outside: Project, tmp_path: Path
) -> None:
    with pytest.raises(FetchFailed, match="couldn't find remote ref") as caught:
        fetch(outside, "refs/heads/gone")

    assert not caught.value.temporary


def test_a_refused_password_is_told_without_the_password(server: Server, project: Any) -> None:
    outside = Project.objects.create(slug="outside", clone_url=server.git_url(token="sesame"))

    with pytest.raises(FetchFailed) as caught:
        fetch(outside, "refs/heads/main")

    assert not caught.value.temporary
    assert "sesame" not in str(caught.value)


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

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()

    def to(url: str) -> str:
        nonlocal target
        target = url
        return f"http://127.0.0.1:{listener.server_port}/x.git"

    yield to
    listener.shutdown()
    listener.server_close()


def test_a_redirect_is_not_followed(
    redirecting: Callable[[str], str], upstream: str, tmp_path: Path
) -> None:
    commit(tmp_path, {"a": "1"})
    git("push", upstream, "main", cwd=tmp_path)
    for where in (f"{upstream}/info/refs?service=git-upload-pack", "file:///etc", "ext::id"):
        slug = f"outside{len(where)}"
        outside = Project.objects.create(slug=slug, clone_url=redirecting(where))

        with pytest.raises(FetchFailed):
            fetch(outside, "refs/heads/main")

        assert heads(git_dir(outside)) == {}
