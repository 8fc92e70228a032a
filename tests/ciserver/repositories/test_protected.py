"""Protected branches and tags of hosted repositories, and who may change what is protected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from ciserver.accounts.models import AuditEntry
from ciserver.projects.models import Role
from ciserver.repositories.git import git_dir, heads
from ciserver.repositories.rules import wrong_pattern
from tests.ciserver.repositories.serving import Server, commit, git
from tests.conftest import api_as

URL = "/api/v1/projects/hello/repository/"


@pytest.fixture
def remote(server: Server, project: Any, bob: Any, token_of: Callable[..., str]) -> str:
    project.protected_branches, project.protected_tags = ["release/*"], ["v*"]
    project.save()
    return server.git_url(token=token_of(bob))


@pytest.fixture
def pushed(remote: str, tmp_path: Path) -> str:
    """main, a release and a tag are there."""
    sha = commit(tmp_path, {"a": "1"})
    git("push", remote, "main", "main:release/1", "main:feature", "main:refs/tags/v1", cwd=tmp_path)
    return sha


@pytest.mark.parametrize("branch", ["main", "release/1", "release/2/deep"])
def test_a_protected_branch_goes_forward(
    remote: str, pushed: str, project: Any, tmp_path: Path, branch: str
) -> None:
    sha = commit(tmp_path, {"a": "2"})
    git("push", remote, f"main:{branch}", cwd=tmp_path)
    assert heads(git_dir(project))[f"refs/heads/{branch}"] == sha


@pytest.mark.parametrize("branch", ["main", "release/1"])
def test_nobody_force_pushes_or_deletes_a_protected_branch(
    remote: str, pushed: str, project: Any, tmp_path: Path, branch: str
) -> None:
    before = heads(git_dir(project))
    git("commit", "--quiet", "--amend", "-m", "Another history", cwd=tmp_path)

    forced = git("push", "--force", remote, f"main:{branch}", cwd=tmp_path, ok=False)
    gone = git("push", remote, f":{branch}", cwd=tmp_path, ok=False)

    assert f"refs/heads/{branch} is protected: no forced push." in forced
    assert f"refs/heads/{branch} is protected: it cannot be deleted." in gone
    assert heads(git_dir(project)) == before
    assert list((git_dir(project) / "spool").iterdir()) == []


def test_a_protected_tag_is_made_once_and_stays(
    remote: str, pushed: str, project: Any, tmp_path: Path
) -> None:
    commit(tmp_path, {"a": "2"})
    moved = git("push", "--force", remote, "main:refs/tags/v1", cwd=tmp_path, ok=False)
    gone = git("push", remote, ":refs/tags/v1", cwd=tmp_path, ok=False)
    assert "refs/tags/v1 is protected: it cannot be moved. Make a new tag." in moved
    assert "it cannot be deleted" in gone
    assert heads(git_dir(project))["refs/tags/v1"] == pushed


def test_what_is_not_protected_may_be_forced_and_deleted(
    remote: str, pushed: str, project: Any, tmp_path: Path
) -> None:
    git("commit", "--quiet", "--amend", "-m", "Another history", cwd=tmp_path)
    git("push", "--force", remote, "main:feature", cwd=tmp_path)
    git("push", remote, ":feature", cwd=tmp_path)
    assert "refs/heads/feature" not in heads(git_dir(project))


def test_a_developer_cannot_push_where_a_maintainer_is_needed(
    remote: str, pushed: str, project: Any, tmp_path: Path
) -> None:
    project.push_role = Role.MAINTAINER
    project.save()
    commit(tmp_path, {"a": "2"})

    said = git("push", remote, "main", "main:other", cwd=tmp_path, ok=False)

    assert "refs/heads/main is protected: pushing to it needs the role maintainer." in said
    assert heads(git_dir(project))["refs/heads/main"] == pushed
    git("push", remote, "main:other", cwd=tmp_path)


def test_a_push_over_the_projects_size_is_refused(
    remote: str, pushed: str, project: Any, tmp_path: Path
) -> None:
    project.max_push_mib = 1
    project.save()
    commit(tmp_path, {"big": bytes(range(256)) * 8192})
    said = git("push", remote, "main:big", cwd=tmp_path, ok=False)
    assert "pack exceeds maximum allowed size" in said
    assert "larger than 1 MiB. Push it in parts, or have a maintainer raise the limit" in said
    assert "refs/heads/big" not in heads(git_dir(project))


def test_the_rules_are_read_and_changed_over_the_api(api: Any, project: Any) -> None:
    changed = api.patch(
        URL, {"protected_branches": ["release/*"], "push_role": "maintainer"}, format="json"
    )
    assert changed.status_code == 200, changed.content
    assert api.get(URL).json() == {
        "clone_url": "",
        "default_branch": "main",
        "protected_branches": ["release/*"],
        "protected_tags": [],
        "push_role": "maintainer",
        "max_push_mib": 2048,
        "max_push_refs": 500,
    }
    entry = AuditEntry.objects.get(action="project.git-rules")
    assert entry.detail == {"protected_branches": ["release/*"], "push_role": 30}


@pytest.mark.parametrize(
    "change",
    [
        {"protected_branches": ["a b"]},
        {"protected_branches": ["$(touch x)"]},
        {"protected_tags": ["[v]*"]},
        {"protected_tags": "v*"},
        {"default_branch": "-x"},
        {"push_role": "viewer"},
        {"max_push_mib": 0},
        {"max_push_refs": 501},
    ],
)
def test_a_rule_that_cannot_be_is_refused(api: Any, project: Any, change: dict[str, Any]) -> None:
    assert api.patch(URL, change, format="json").status_code == 400


def test_only_maintainers_change_the_rules(bob: Any, charlie: Any, project: Any) -> None:
    change = {"push_role": "developer"}
    assert api_as(bob).get(URL).status_code == 200
    assert api_as(bob).patch(URL, change, format="json").status_code == 403
    assert api_as(charlie).get(URL).status_code == 404


def test_the_rules_have_a_page(alice: Any, bob: Any, project: Any) -> None:
    client = Client()
    client.force_login(alice)
    page = "/projects/hello/repository/"
    form = {
        "default_branch": "trunk",
        "protected_branches": "release/*\nhotfix/*\n",
        "protected_tags": "v*",
        "push_role": "30",
        "max_push_mib": "100",
        "max_push_refs": "10",
    }
    assert client.post(page, form).status_code == 302
    project.refresh_from_db()
    assert project.protected_branches == ["release/*", "hotfix/*"]
    assert (project.default_branch, project.max_push_refs) == ("trunk", 10)
    assert b"hotfix/*" in client.get(page).content
    wrong = client.post(page, form | {"protected_tags": "a;b"})
    assert (wrong.status_code, b"is no pattern" in wrong.content) == (400, True)
    client.force_login(bob)
    assert b"A maintainer can change them." in client.get(page).content
    assert client.post(page, form | {"push_role": "20"}).status_code == 403


def test_the_default_branch_is_what_a_clone_gets(
    remote: str, pushed: str, api: Any, tmp_path: Path
) -> None:
    api.patch(URL, {"default_branch": "feature"}, format="json")
    git("clone", "--quiet", remote, str(tmp_path / "clone"))
    assert git("symbolic-ref", "HEAD", cwd=tmp_path / "clone") == "refs/heads/feature"


def test_fifty_patterns_are_enough() -> None:
    assert wrong_pattern(["a"] * 50) == ""
    assert "50 patterns" in wrong_pattern(["a"] * 51)
