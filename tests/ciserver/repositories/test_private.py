"""Private repositories elsewhere: a deploy key of ours over a real sshd, and logins over http."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.projects import origins
from ciserver.projects import services as projects
from ciserver.projects.models import Membership, Project, Role
from ciserver.repositories import services
from ciserver.repositories.errors import FetchFailed
from ciserver.repositories.git import fetch, git_dir, ls_remote
from ciserver.repositories.models import Access
from tests.ciserver.repositories.serving import Server, commit, git
from tests.conftest import api_as

pytestmark = pytest.mark.usefixtures("loopback_is_outside", "db")
MAIN = "refs/heads/main"


@dataclass
class Sshd:
    """Lets in whoever's key is in ``allowed``; every login may only serve Git."""

    folder: Path
    port: int

    @property
    def allowed(self) -> Path:
        return self.folder / "authorized_keys"

    def url(self, repository: Path) -> str:
        return f"ssh://root@127.0.0.1:{self.port}{repository}"

    def new_host_key(self) -> None:
        for path in self.folder.glob("host*"):
            path.unlink()
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host")]
        subprocess.run(key, check=True)

    def start(self) -> subprocess.Popen[bytes]:
        options = {
            "Port": str(self.port), "ListenAddress": "127.0.0.1", "PidFile": "none",
            "HostKey": str(self.folder / "host"), "AuthorizedKeysFile": str(self.allowed),
            "StrictModes": "no", "UsePAM": "no", "PasswordAuthentication": "no",
            "PermitRootLogin": "yes", "KbdInteractiveAuthentication": "no",
        }  # fmt: skip
        words = [word for pair in options.items() for word in ("-o", "=".join(pair))]
        Path("/run/sshd").mkdir(exist_ok=True)
        process = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-f", "/dev/null", *words], stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return process
            time.sleep(0.02)
        raise AssertionError("sshd did not start")


@pytest.fixture
def sshd() -> Iterator[Sshd]:
    folder = Path(tempfile.mkdtemp(prefix="gantry-sshd-", dir="/var/tmp"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = Sshd(folder, probe.getsockname()[1])
    server.new_host_key()
    server.allowed.touch()
    process = server.start()
    yield server
    process.terminate()
    process.wait()
    shutil.rmtree(folder)


@pytest.fixture
def head(sshd: Sshd, tmp_path: Path) -> str:
    """What is in the private repository."""
    sha = commit(tmp_path, {"a": "1"})
    git("clone", "--quiet", "--bare", str(tmp_path), str(sshd.folder / "x.git"))
    return sha


@pytest.fixture
def private(sshd: Sshd, head: str, alice: Any) -> Project:
    url = sshd.url(sshd.folder / "x.git")
    return projects.create(slug="private", owner=alice, clone_url=url)


def let_in(sshd: Sshd, project: Project, user: Any) -> Access:
    access = services.renew_key(project=project, user=user)
    sshd.allowed.write_text(f"{access.public_key}\n")
    return access


def test_a_private_repository_is_fetched_with_the_projects_own_key(
    sshd: Sshd, private: Project, head: str, alice: Any
) -> None:
    access = let_in(sshd, private, alice)
    assert fetch(private, MAIN) == head
    assert ls_remote(private) == {MAIN: head}
    access.refresh_from_db()
    told = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(sshd.folder / "host.pub")],
        capture_output=True,
        text=True,
        check=True,
    )
    (pinned,) = access.fingerprints
    assert pinned.split()[1] == told.stdout.split()[1]
    assert not list(Path("/dev/shm").glob(f"gantry-git-{os.getpid()}-*"))


def test_a_fetch_that_brings_too_much_is_refused_and_leaves_nothing(
    sshd: Sshd, private: Project, alice: Any, tmp_path: Path, settings: Any
) -> None:
    let_in(sshd, private, alice)
    commit(tmp_path, {"big": os.urandom(4 * 1024 * 1024)} | {str(n): str(n) for n in range(200)})
    git("push", "--quiet", str(sshd.folder / "x.git"), "HEAD:refs/heads/big", cwd=tmp_path)
    settings.GANTRY = replace(settings.GANTRY, fetch_bytes=1024 * 1024)

    with pytest.raises(FetchFailed, match=r"more than 1 MiB.*GANTRY_FETCH_MAX_MIB") as caught:
        fetch(private, "refs/heads/big")

    assert not caught.value.temporary
    kept = [path for path in git_dir(private).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 100_000
    fetch(private, MAIN)


def test_without_the_key_the_error_says_what_to_do(
    sshd: Sshd, private: Project, alice: Any
) -> None:
    with pytest.raises(FetchFailed, match="Make one on the repository's page") as caught:
        fetch(private, MAIN)
    assert not caught.value.temporary
    services.renew_key(project=private, user=alice)
    with pytest.raises(FetchFailed, match="Give it the public key") as caught:
        fetch(private, MAIN)
    assert not caught.value.temporary


def test_a_host_whose_key_changed_gets_nothing_until_it_is_forgotten(
    sshd: Sshd, private: Project, head: str, alice: Any
) -> None:
    let_in(sshd, private, alice)
    fetch(private, MAIN)
    sshd.new_host_key()
    old, sshd.port = sshd.port, _free_port()
    process = sshd.start()
    try:
        Project.objects.update(clone_url=private.clone_url.replace(str(old), str(sshd.port)))
        private.refresh_from_db()
        with pytest.raises(FetchFailed, match="another key than the one that was pinned"):
            fetch(private, MAIN)
        services.forget_host_keys(project=private, user=alice)
        assert fetch(private, MAIN) == head
    finally:
        process.terminate()
        process.wait()


def test_neither_key_nor_password_stands_on_a_command_line(
    sshd: Sshd, private: Project, alice: Any
) -> None:
    access = let_in(sshd, private, alice)
    key = access.key
    assert key is not None
    secret = key.reveal().splitlines()[1]
    seen: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(path.read_text(errors="replace"))
                except OSError:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    fetch(private, MAIN)
    stop.set()
    watcher.join()
    assert any("GIT_SSH_COMMAND" in line for line in seen)
    assert not any(secret in line for line in seen)
    assert secret not in access.key_sealed


def test_an_https_login_is_shown_to_its_repository_and_to_nobody_else(
    server: Server, project: Any, alice: Any, token_of: Callable[..., str], tmp_path: Path
) -> None:
    token = token_of(alice)
    sha = commit(tmp_path, {"a": "1"})
    git("push", server.git_url(token=token), "main", cwd=tmp_path)
    outside = projects.create(slug="outside", owner=alice, clone_url=server.git_url())
    with pytest.raises(FetchFailed):
        fetch(outside, MAIN)

    access = services.set_login(
        project=outside, user=alice, username="al@ice", password=Secret(token)
    )

    assert token not in access.password_sealed
    assert fetch(outside, MAIN) == sha
    services.set_login(project=outside, user=alice, username="x", password=Secret("wrong"))
    with pytest.raises(FetchFailed) as caught:
        fetch(outside, MAIN)
    assert "wrong" not in str(caught.value)
    assert not caught.value.temporary


def test_a_password_does_not_travel_in_the_clear(alice: Any) -> None:
    plain = projects.create(slug="plain", owner=alice, clone_url="http://forge.example/x.git")
    with pytest.raises(Refused, match="travels over https"):
        services.set_login(project=plain, user=alice, username="a", password=Secret("b"))
    safe = projects.create(slug="safe", owner=alice, clone_url="https://forge.example/x.git")
    for name, password in (("a:b", "c"), ("a", ""), ("a", "b\nc")):
        with pytest.raises(Refused):
            services.set_login(project=safe, user=alice, username=name, password=Secret(password))


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("git@forge.example:team/x.git", "ssh://git@forge.example/team/x.git"),
        ("ssh://git@forge.example:2222/x.git", "ssh://git@forge.example:2222/x.git"),
    ],
)
def test_an_ssh_address_is_taken_in_both_ways_of_writing(alice: Any, url: str, stored: str) -> None:
    assert projects.create(slug="x", owner=alice, clone_url=url).clone_url == stored


@pytest.mark.parametrize(
    "url",
    [
        "ssh://-oProxyCommand=touch@forge.example/x",
        "ssh://git@-oProxyCommand=touch/x",
        "ssh://git:password@forge.example/x",
        "ssh://git@10.0.0.1/x",
        "-x@forge.example:y",
        "git@169.254.169.254:x",
        "file:///etc",
        "ext::sh -c id",
    ],
)
def test_a_crooked_address_is_refused(alice: Any, url: str) -> None:
    with pytest.raises(Refused):
        projects.create(slug="x", owner=alice, clone_url=url)


def test_this_machines_own_addresses_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origins, "_is_ours", lambda address: str(address) == "8.8.8.8")
    with pytest.raises(Refused, match="this machine"):
        origins.check("https://8.8.8.8/x.git")
    origins.check("https://1.1.1.1/x.git")
    monkeypatch.undo()
    assert origins._is_ours(origins.ip_address("127.0.0.1"))
    assert not origins._is_ours(origins.ip_address("1.1.1.1"))


def test_access_is_managed_over_the_api_by_maintainers(
    private: Project, bob: Any, api: Any
) -> None:
    url = "/api/v1/projects/private/repository/access/"
    Membership.objects.create(project=private, user=bob, role=Role.DEVELOPER)
    assert api_as(bob).post(f"{url}key/").status_code == 403
    key = api.post(f"{url}key/").json()["public_key"]
    assert key.startswith("ssh-ed25519 ")
    assert "PRIVATE" not in api.get(url).content.decode()
    login = api.put(f"{url}login/", {"username": "a", "password": "hunter2"}, format="json")
    assert "hunter2" not in login.content.decode()
    assert api.delete(f"{url}login/").status_code == 204
    assert api.delete(f"{url}host-keys/").status_code == 204


def test_access_has_a_page(private: Project, alice: Any) -> None:
    client = Client()
    client.force_login(alice)
    page = "/projects/private/repository/"
    assert client.post(f"{page}key/").status_code == 302
    assert b"ssh-ed25519 " in client.get(page).content
    assert client.post(f"{page}login/", {"username": "a", "password": "b"}).status_code == 302
    assert client.post(f"{page}forget/").status_code == 302


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
