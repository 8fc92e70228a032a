"""Who may fetch and push; what everyone else is told; requests that git would never make."""

from __future__ import annotations

import base64
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ciserver.accounts.models import SignInFailure
from ciserver.projects.models import Membership, Project, Role
from ciserver.repositories.git import create_hosted, git_dir, heads
from ciserver.webhooks.models import Delivery
from tests.ciserver.repositories.serving import Server, commit, git

FETCH = "info/refs?service=git-upload-pack"
PUSH = "info/refs?service=git-receive-pack"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    commit(tmp_path, {"a": "1"})
    return tmp_path


def test_without_a_token_git_is_asked_for_one(server: Server, project: Any) -> None:
    answer = httpx.get(f"{server.git_url()}/{FETCH}")

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")


def test_without_a_token_a_project_looks_like_none(server: Server, project: Any) -> None:
    there = httpx.get(f"{server.git_url('hello')}/{FETCH}")
    missing = httpx.get(f"{server.git_url('missing')}/{FETCH}")

    assert (there.status_code, there.text) == (missing.status_code, missing.text)


@pytest.mark.parametrize("slug", ["hello", "missing"])
def test_a_browser_at_a_repositorys_address_is_led_to_the_projects_page(
    server: Server, project: Any, slug: str
) -> None:
    answer = httpx.get(server.git_url(slug))

    assert (answer.status_code, answer.headers["Location"]) == (302, f"/projects/{slug}/")


def test_credentials_of_any_other_shape_are_refused(server: Server, project: Any) -> None:
    for text in (
        "Basic",
        "Basic !!",
        "Basic Og==",
        "Basic /w==",
        "Bearer x",
        "Basic " + "A" * 9000,
    ):
        answer = httpx.get(f"{server.git_url()}/{FETCH}", headers={"Authorization": text})

        assert answer.status_code == 401


def test_ones_own_name_and_password_open_what_ones_role_does(
    server: Server, project: Any, bob: Any, charlie: Any, work: Path, settings: Any
) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]  # the server's
    for user in (bob, charlie):
        user.set_password(f"{user.username}-password-1")
        user.save()
    Membership.objects.create(project=project, user=charlie, role=Role.VIEWER)
    remote = server.git_url()
    as_bob, as_charlie = (_as(remote, user.username) for user in (bob, charlie))

    git("push", as_bob, "main", cwd=work)
    git("ls-remote", as_charlie)
    said = git("push", as_charlie, "main:other", cwd=work, ok=False)

    assert "needs the role developer" in said
    assert list(heads(git_dir(project))) == ["refs/heads/main"]
    assert not SignInFailure.objects.exists()


def test_a_wrong_password_or_an_account_that_is_off_opens_nothing(
    server: Server, project: Any, bob: Any, alice: Any
) -> None:
    bob.is_active = False
    bob.save()
    for auth in (("alice", "wrong"), ("bob", "bob-password-1"), ("nobody", "x"), ("alice", "")):
        answer = httpx.get(f"{server.git_url()}/{FETCH}", auth=auth)
        assert answer.status_code == 401


def test_who_guesses_passwords_has_to_wait_and_an_old_token_is_no_guess(
    server: Server, project: Any, alice: Any
) -> None:
    url = f"{server.git_url()}/{FETCH}"
    for _ in range(12):
        assert httpx.get(url, auth=("alice", "gantry_gone")).status_code == 401
    answers = [httpx.get(url, auth=("alice", f"guess-{n}")).status_code for n in range(12)]
    right = httpx.get(url, auth=("alice", "alice-password-1"))

    assert answers == [401] * 10 + [429] * 2
    assert right.status_code == 429
    assert "Try again in 15 min" in right.text


def _as(remote: str, name: str) -> str:
    return remote.replace("://", f"://{name}:{name}-password-1@")


def test_a_stranger_is_told_that_there_is_no_such_project(
    server: Server, project: Any, charlie: Any, token_of: Callable[..., str], work: Path
) -> None:
    said = git("push", server.git_url(token=token_of(charlie)), "main", cwd=work, ok=False)

    assert "There is no project 'hello', or you may not see it." in said
    assert not Delivery.objects.exists()


def test_a_read_token_fetches_but_does_not_push(
    server: Server, project: Any, bob: Any, token_of: Callable[..., str], work: Path
) -> None:
    remote = server.git_url(token=token_of(bob, "read"))

    git("ls-remote", remote)
    said = git("push", remote, "main", cwd=work, ok=False)

    assert "This token may only read." in said
    assert heads(git_dir(project)) == {}


def test_a_viewer_fetches_but_does_not_push(
    server: Server, project: Any, charlie: Any, token_of: Callable[..., str], work: Path
) -> None:
    Membership.objects.create(project=project, user=charlie, role=Role.VIEWER)
    remote = server.git_url(token=token_of(charlie))

    git("ls-remote", remote)
    said = git("push", remote, "main", cwd=work, ok=False)

    assert "needs the role developer" in said
    assert heads(git_dir(project)) == {}


def test_a_push_may_not_skip_the_first_question(
    server: Server, project: Any, charlie: Any, token_of: Callable[..., str]
) -> None:
    Membership.objects.create(project=project, user=charlie, role=Role.VIEWER)
    auth = ("x", token_of(charlie))

    answer = httpx.post(f"{server.git_url()}/git-receive-pack", auth=auth, content=b"0000")

    assert answer.status_code == 403


def test_a_project_hosted_elsewhere_is_not_served(
    server: Server, alice: Any, token_of: Callable[..., str]
) -> None:
    outside = Project.objects.create(slug="outside", clone_url="https://example.org/x.git")
    Membership.objects.create(project=outside, user=alice, role=Role.OWNER)

    answer = httpx.get(f"{server.git_url('outside')}/{FETCH}", auth=("x", token_of(alice)))

    assert answer.status_code == 404
    assert "is not hosted here" in answer.text


LINES = [
    f"/git/{name}{rest}"
    for name in (
        "hello",
        "Hello.git",
        "hello.git.git",
        "../other.git",
        "%2e%2e/other.git",
        "hello.git/../other.git",
        "hello.git/%2e%2e/other.git",
        "hello.git%00",
        "./hello.git",
        "1.git",
        "hello%2f..%2fother.git",
        "hello.git//",
    )
    for rest in (f"/{FETCH}", "/git-upload-pack", "/HEAD")
] + [
    "/git/hello.git/config",
    "/git/hello.git/objects/info/packs",
    "/git/hello.git/info/refs",
    "/git/hello.git/info/refs?service=git-upload-archive",
    "/git/hello.git/info/refs?service=git-receive-pack&service=git-upload-pack",
    "/git/hello.git/info/refs?service=--help",
    "/git/hello.git/spool/x",
    "/git/",
]


def test_crooked_request_lines_are_refused(
    server: Server, project: Any, bob: Any, token_of: Callable[..., str]
) -> None:
    create_hosted(Project.objects.create(slug="other"))
    token = token_of(bob)

    answers = {target: _status(server, target, token) for target in LINES}

    assert {t: s for t, s in answers.items() if s not in {400, 401, 403, 404, 405}} == {}


def test_the_protocol_header_cannot_carry_anything_else(
    server: Server, project: Any, bob: Any, token_of: Callable[..., str]
) -> None:
    for value in ("version=2:x", "--upload-pack=x", "version=9", "$(id)"):
        answer = httpx.get(
            f"{server.git_url()}/{FETCH}",
            auth=("x", token_of(bob)),
            headers={"Git-Protocol": value},
        )
        assert answer.status_code == 200
        assert b"# service=git-upload-pack" in answer.content  # protocol 0: the header was dropped


def test_a_body_that_is_no_pack_is_answered_by_git_and_moves_nothing(
    server: Server, project: Any, bob: Any, token_of: Callable[..., str]
) -> None:
    for body in (b"", b"zzzz", b"0000", os.urandom(5000), b"\x1f\x8b" + os.urandom(200)):
        for encoding in ("identity", "gzip"):
            answer = httpx.post(
                f"{server.git_url()}/git-receive-pack",
                auth=("x", token_of(bob)),
                content=body,
                headers={
                    "Content-Type": "application/x-git-receive-pack-request",
                    "Content-Encoding": encoding,
                },
            )
            taken = {200, 400, 403, 500, 504} if encoding == "identity" else {415}
            assert answer.status_code in taken
    assert heads(git_dir(project)) == {}
    assert not Delivery.objects.exists()


def test_a_client_that_goes_away_takes_git_with_it(
    server: Server, project: Any, bob: Any, token_of: Callable[..., str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        head = _head("POST", "/git/hello.git/git-receive-pack", token_of(bob))
        head += "Content-Type: application/x-git-receive-pack-request\r\nContent-Length: 99999\r\n"
        sock.sendall(head.encode() + b"\r\n00")  # Git reads on
        assert _eventually(lambda: _children(server.process.pid) != [])

    assert _eventually(lambda: _children(server.process.pid) == [])


def _status(server: Server, target: str, token: str) -> int:
    """Sent by hand: a client library would tidy the path first."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall((_head("GET", target, token) + "Connection: close\r\n\r\n").encode())
        return int(sock.makefile("rb").readline().split()[1])


def _head(method: str, target: str, token: str) -> str:
    credentials = base64.b64encode(f"x:{token}".encode()).decode()
    return (
        f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\n"
    )


def _children(pid: int) -> list[str]:
    """Living git processes that ``pid`` started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = entry.read_text().rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == pid and state != "Z":
            found.append(entry.parent.name)
    return found


def _eventually(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
