"""The address of an outside repository is changed, with the checks that making a project does."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from ciserver.accounts.models import AuditEntry
from ciserver.lib.crypto import Secret
from ciserver.projects.models import Project
from ciserver.repositories import services
from ciserver.repositories.models import Access
from tests.conftest import api_as

URL = "/api/v1/projects/hello/repository/"
PAGE = "/projects/hello/repository/"
pytestmark = pytest.mark.django_db


@pytest.fixture
def outside(project: Any, alice: Any) -> Project:
    """``hello`` of another forge, with a login and a pinned key."""
    Project.objects.update(clone_url="https://1.1.1.1/team/hello.git")
    project.refresh_from_db()
    services.set_login(project=project, user=alice, username="bot", password=Secret("a-token-1"))
    Access.objects.update(host_keys="1.1.1.1 ssh-ed25519 AAAA")
    return project  # type: ignore[no-any-return]


def patch(user: Any, url: str) -> Any:
    return api_as(user).patch(URL, {"clone_url": url}, format="json")


def test_a_maintainer_names_another_repository(outside: Project, alice: Any) -> None:
    answer = patch(alice, "https://1.1.1.1/team/renamed.git")
    assert answer.json()["clone_url"] == "https://1.1.1.1/team/renamed.git"
    outside.refresh_from_db()
    assert outside.clone_url == "https://1.1.1.1/team/renamed.git"
    assert AuditEntry.objects.filter(action="project.git-rules").latest("pk").detail == {
        "clone_url": "https://1.1.1.1/team/renamed.git"
    }
    assert Access.objects.get().username == "bot"  # it is the same server


@pytest.mark.parametrize(
    "url", ["https://8.8.8.8/hello.git", "https://1.1.1.1:8443/hello.git", "git@1.1.1.1:a/b.git"]
)
def test_another_server_is_not_given_the_login_of_the_one_before(
    outside: Project, alice: Any, url: str
) -> None:
    assert patch(alice, url).status_code == 200
    access = Access.objects.get()
    assert (access.username, access.password_sealed, access.host_keys) == ("", "", "")
    outside.refresh_from_db()
    assert outside.clone_url in {url, "ssh://git@1.1.1.1/a/b.git"}


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/x.git", "file:///etc", "https://a:b@1.1.1.1/x.git", "--upload-pack=x"],
)
def test_what_no_new_project_may_name_is_refused(outside: Project, alice: Any, url: str) -> None:
    answer = patch(alice, url)
    assert (answer.status_code, answer.json()["code"]) == (400, "project.clone-url")
    client = Client()
    client.force_login(alice)
    form = {"clone_url": url, "default_branch": "main", "push_role": "20"}
    assert client.post(PAGE, form).status_code == 400
    outside.refresh_from_db()
    assert outside.clone_url == "https://1.1.1.1/team/hello.git"


def test_the_page_changes_it(outside: Project, alice: Any) -> None:
    client = Client()
    client.force_login(alice)
    assert 'value="https://1.1.1.1/team/hello.git"' in client.get(PAGE).content.decode()
    form = {"clone_url": "https://8.8.8.8/new.git", "default_branch": "main", "push_role": "20"}
    assert client.post(PAGE, form).status_code == 302
    outside.refresh_from_db()
    assert outside.clone_url == "https://8.8.8.8/new.git"


def test_a_developer_may_not(outside: Project, bob: Any) -> None:
    assert patch(bob, "https://8.8.8.8/new.git").status_code == 403


def test_what_is_hosted_stays_hosted_and_what_is_not_keeps_an_address(
    project: Any, alice: Any
) -> None:
    assert patch(alice, "https://8.8.8.8/new.git").json()["code"] == "git.clone_url"
    assert patch(alice, "").status_code == 200  # as it is
    client = Client()
    client.force_login(alice)
    assert 'name="clone_url"' not in client.get(PAGE).content.decode()
    Project.objects.update(clone_url="https://1.1.1.1/team/hello.git")
    assert patch(alice, "").status_code == 400
