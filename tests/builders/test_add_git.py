"""ADD of repositories: what is fetched, from where, and what of it gets into the image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from builders.errors import ContextError, DockerfileError
from builders.images.store import Image
from builders.remote.git import Access, Repository
from builders.remote.places import GitPlace, NoPlace, parse_place
from runtime.spec import Network
from tests.builders.conftest import IDS, Builder
from tests.builders.flatten import Tree, tree_on_disk
from tests.builders.githost import GitHost, git, make_repository

pytestmark = pytest.mark.root
Project = Callable[[Mapping[str, str]], Path]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return make_repository(tmp_path_factory.mktemp("githost"))


@pytest.fixture
def host(repository: tuple[Path, str]) -> Iterator[GitHost]:
    host = GitHost(repository[0].parent)
    yield host
    host.close()


class Adding:
    """Builds ``FROM scratch`` and one ADD, and shows what came of it."""

    def __init__(self, builder: Builder, project: Project, host: GitHost) -> None:
        self._builder = builder
        self._project = project
        self.host = host

    def image(self, line: str, **asked: object) -> Image:
        text = line.replace("HOST", self.host.place)
        context = self._project({"Dockerfile": f"FROM scratch\nADD {text}\n"})
        asked = {"network": Network.EGRESS, "egress_allow": [self.host.place], **asked}
        return self._builder.one(context, **asked)

    def tree(self, line: str, **asked: object) -> Tree:
        image = self.image(line, **asked)
        with self._builder.store.rootfs(image.layers, ids=IDS, bare=True) as rootfs:
            return tree_on_disk(rootfs.path, IDS.base)


@pytest.fixture
def adding(builder: Builder, project: Project, host: GitHost) -> Adding:
    return Adding(builder, project, host)


def test_a_repositorys_files_come_as_docker_brings_them(adding: Adding) -> None:
    assert adding.tree("http://HOST/app.git /app") == {
        "app": ["folder", "0755", 0, 0, ""],
        "app/.dockerignore": ["file", "0644", 0, 0, "README\n"],
        "app/README": ["file", "0644", 0, 0, "hello\n"],
        "app/docs": ["folder", "0755", 0, 0, ""],
        "app/docs/guide.md": ["file", "0644", 0, 0, "guide\n"],
        "app/link": ["link", "0777", 0, 0, "README"],
        "app/out": ["link", "0777", 0, 0, "/etc"],
        "app/run.sh": ["file", "0755", 0, 0, "#!/bin/sh\n"],
    }


@pytest.mark.parametrize(
    ("fragment", "text"),
    [
        ("#main", "hello\n"),
        ("#team/next", "next\n"),
        ("#v1", "hello\n"),
        ("#light", "hello\n"),
        ("#refs/heads/team/next", "next\n"),
        ("#SHA", "hello\n"),
    ],
)
def test_a_branch_a_tag_or_a_commit_is_chosen(
    fragment: str, text: str, adding: Adding, repository: tuple[Path, str]
) -> None:
    line = f"http://HOST/app.git{fragment.replace('SHA', repository[1])} /app/"
    assert adding.tree(line)["app/README"][-1] == text


def test_a_folder_of_it_can_be_asked_for(adding: Adding) -> None:
    tree = adding.tree("--chown=3:4 --chmod=0600 http://HOST/app.git#main:docs /d")
    assert tree["d/guide.md"] == ["file", "0600", 3, 4, "guide\n"]
    assert set(tree) == {"d", "d/guide.md"}


def test_excluded_files_stay_out(adding: Adding) -> None:
    tree = adding.tree("--exclude=docs --exclude=*.sh http://HOST/app.git /")
    assert set(tree) == {".dockerignore", "README", "link", "out"}


@pytest.mark.parametrize("subdir", ["none", "../..", "out", "README"])
def test_no_folder_leads_out_of_the_repository(subdir: str, adding: Adding) -> None:
    with pytest.raises(ContextError, match=r"^Dockerfile:2: "):
        adding.image(f"http://HOST/app.git#main:{subdir} /d")


def test_git_dir_is_kept_on_request_and_works_and_is_always_the_same(
    adding: Adding, repository: tuple[Path, str], tmp_path: Path, builder: Builder
) -> None:
    line = "--keep-git-dir=true http://HOST/app.git#v1 /app"
    image = adding.image(line)
    again = adding.image(line, no_cache=True)
    assert [one.diff_id for one in image.layers] == [one.diff_id for one in again.layers]
    with builder.store.rootfs(image.layers, ids=IDS, bare=True) as rootfs:
        app = rootfs.path / "app"
        safe = ("-c", f"safe.directory={app}")
        assert git(app, *safe, "rev-parse", "HEAD") == repository[1]
        assert git(app, *safe, "status", "--porcelain") == ""
        assert git(app, *safe, "remote", "get-url", "origin").endswith("/app.git")
        assert (app / ".git").stat().st_uid == IDS.base
        assert not list((app / ".git").rglob("*.sample"))


def test_what_is_cached_for_a_commit_is_not_fetched_again(
    adding: Adding, repository: tuple[Path, str]
) -> None:
    line = f"http://HOST/app.git#{repository[1]} /cached"
    first = adding.image(line)
    adding.host.asked.clear()
    assert adding.image(line).id == first.id
    assert adding.host.asked == []
    assert adding.image("http://HOST/app.git#v1 /cached").layers == first.layers
    assert {path.partition("?")[0] for path, _ in adding.host.asked} == {
        "/app.git/info/refs",
        "/app.git/git-upload-pack",  # protocol 2 lists refs there, too
    }


def test_a_moved_branch_does_not_pass_for_the_commit_that_was_meant(
    adding: Adding, repository: tuple[Path, str]
) -> None:
    short = repository[1][:10]
    assert adding.tree(f"--checksum={short} http://HOST/app.git#main /c")["c/README"]
    with pytest.raises(ContextError, match=f"at team/next the commit .*, and not {short}"):
        adding.image(f"--checksum={short} http://HOST/app.git#team/next /c")


def test_a_branch_that_is_not_there_is_named(adding: Adding) -> None:
    with pytest.raises(ContextError, match="it has no branch or tag 'nope'"):
        adding.image("http://HOST/app.git#nope /c")
    with pytest.raises(ContextError, match="there is no such repository"):
        adding.image("http://HOST/none.git /c")


def test_a_server_that_redirects_or_wants_a_sign_in_is_not_followed(adding: Adding) -> None:
    with pytest.raises(ContextError, match="it redirects to another address"):
        adding.image("http://HOST/moved.git /c")
    with pytest.raises(ContextError, match="it wants a sign-in"):
        adding.image("http://HOST/private.git /c")
    assert not any(path.startswith("/app.git") for path, _ in adding.host.asked)


def test_a_token_never_travels_without_encryption(adding: Adding) -> None:
    adding.tree("http://HOST/app.git /t", secrets={"GIT_AUTH_TOKEN": b"geheim"})
    assert {login for _, login in adding.host.asked} == {None}


def test_over_https_the_token_is_in_the_environment_and_in_no_command_line(tmp_path: Path) -> None:
    place = GitPlace("https://example.com/a.git", "https", "example.com", 443)
    access = Access(owner=os.getuid(), token=b"geheim\n")
    env = Repository(place, tmp_path, access)._environment()
    assert env["GIT_CONFIG_KEY_0"] == "http.extraHeader"
    assert env["GIT_CONFIG_VALUE_0"] == "Authorization: Basic eC1hY2Nlc3MtdG9rZW46Z2VoZWlt"
    assert "geheim" not in repr(access)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "0x7f.1"])
def test_what_only_this_machine_can_reach_is_not_asked(name: str, adding: Adding) -> None:
    port = adding.host.place.partition(":")[2]
    with pytest.raises(ContextError, match="a build may not reach private addresses"):
        adding.image(f"http://{name}:{port}/app.git /x", egress_allow=[])
    assert adding.host.asked == []


def test_a_build_without_network_fetches_no_repository(adding: Adding) -> None:
    with pytest.raises(ContextError, match="this build has no network"):
        adding.image("http://HOST/app.git /x", network=Network.NONE)
    with pytest.raises(ContextError, match="no SSH agent was given"):
        adding.image("git@127.0.0.1:app.git /x")


def test_submodules_are_told_and_left_out(adding: Adding, repository: tuple[Path, str]) -> None:
    work = repository[0].parent / "work"
    git(work, "checkout", "-q", "-B", "sub", "main")
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{repository[1]},vendor/lib")
    git(work, "commit", "-q", "-m", "sub")
    git(work, "push", "-q", "-f", str(repository[0]), "sub")
    git(work, "reset", "-q", "--hard")
    git(work, "checkout", "-q", "main")
    tree = adding.tree("http://HOST/app.git#sub:vendor /v")
    assert tree == {"v": ["folder", "0755", 0, 0, ""], "v/lib": ["folder", "0755", 0, 0, ""]}


@pytest.mark.parametrize(
    ("text", "url", "ref", "subdir"),
    [
        ("https://a.test/x.git", "https://a.test/x.git", "", ""),
        ("https://a.test:8443/x.git#v1:s/t", "https://a.test:8443/x.git", "v1", "s/t"),
        ("HTTPS://a.test/x.git#:sub", "HTTPS://a.test/x.git", "", "sub"),
        ("git@a.test:team/x.git#main", "git@a.test:team/x.git", "main", ""),
        ("git@a.test:x", "git@a.test:x", "", ""),
        ("ssh://git@a.test:2222/x#b", "ssh://git@a.test:2222/x", "b", ""),
    ],
)
def test_addresses_of_repositories_are_told_by_buildkits_rules(
    text: str, url: str, ref: str, subdir: str
) -> None:
    place = parse_place(text)
    assert place is not None
    assert (place.url, place.ref, place.subdir) == (url, ref, subdir)


@pytest.mark.parametrize(
    "text",
    [
        "a.git",
        "./git@a.test:x",
        "d/x.git#main",
        "https://a.test/x",
        "https://a.test/x.git/f",
        "C:/x",
    ],
)
def test_what_is_no_repository_stays_a_file_or_a_url(text: str) -> None:
    assert parse_place(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "git://a.test/x.git",
        "https://bob:pw@a.test/x.git",
        "https:///x.git",
        "https://a.test:many/x.git",
        "https://a.test/x.git#--upload-pack=touch",
        "https://a.test/x.git#a..b",
        "https://a.test/x.git#a b",
        "https://-oProxyCommand=x/x.git",
        "git@a.test:x#:(top)",
    ],
)
def test_an_address_that_could_mean_something_else_is_refused(text: str) -> None:
    place = None
    try:
        place = parse_place(text)
    except NoPlace:
        return
    assert place is not None and place.ref == "" and ":(top" not in place.url


def test_a_password_in_an_address_is_refused_and_not_repeated(adding: Adding) -> None:
    with pytest.raises(DockerfileError, match="GIT_AUTH_TOKEN") as caught:
        adding.image("https://bob:geheim@example.com/x.git /x")
    assert "geheim" not in str(caught.value)
