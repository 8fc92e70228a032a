"""Members: people and teams with roles; an owner in person is always left."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from ciserver.accounts import teams, users
from ciserver.accounts.models import AuditEntry, Team, User
from ciserver.lib.problems import Refused
from ciserver.projects import members
from ciserver.projects.models import Role, roles_of
from tests.conftest import api_as

MEMBERS = "/api/v1/projects/hello/members/"


@pytest.fixture
def root(db: None) -> Any:
    return User.objects.create_superuser("root")


@pytest.fixture
def crew(root: Any, charlie: Any) -> Team:
    team = teams.create(by=root, name="crew")
    teams.add(team=team, by=root, username="charlie")
    return team


def test_an_owner_adds_promotes_and_removes_somebody(
    project: Any, alice: Any, charlie: Any
) -> None:
    api = api_as(alice)
    url = f"{MEMBERS}charlie/"
    assert api.put(url, {"role": "viewer"}, format="json").status_code == 200
    assert project.allows(charlie, Role.VIEWER)
    answer = api.put(url, {"role": "maintainer"}, format="json").json()
    assert {row["username"]: row["role"] for row in answer["people"]} == {
        "alice": "owner",
        "bob": "developer",
        "charlie": "maintainer",
    }
    assert api.delete(url).status_code == 204
    assert not project.allows(charlie, Role.VIEWER)
    assert api.delete(url).status_code == 404
    done = AuditEntry.objects.filter(action__startswith="member.").order_by("id")
    assert [(row.action, row.target, row.detail["role"]) for row in done] == [
        ("member.set", "hello", [None, "viewer"]),
        ("member.set", "hello", ["viewer", "maintainer"]),
        ("member.remove", "hello", "maintainer"),
    ]


def test_the_last_owner_can_neither_leave_nor_be_made_less(
    project: Any, alice: Any, bob: Any
) -> None:
    api = api_as(alice)
    url = f"{MEMBERS}alice/"
    for refused in (api.delete(url), api.put(url, {"role": "viewer"}, format="json")):
        assert refused.status_code == 409
        assert refused.json()["code"] == "member.last-owner"
    members.set_member(project=project, by=alice, username="bob", role=Role.OWNER)
    assert api.delete(url).status_code == 204
    assert roles_of(bob, [project]) == {project.pk: Role.OWNER}


def test_an_owner_that_is_switched_off_or_owns_by_a_team_is_not_left_as_the_last(
    project: Any, alice: Any, root: Any, crew: Team, bob: Any
) -> None:
    members.set_team(project=project, by=alice, name="crew", role=Role.OWNER)
    members.set_member(project=project, by=alice, username="bob", role=Role.OWNER)
    users.disable(user=bob, by=root)
    with pytest.raises(Refused, match="last owner"):
        members.remove_member(project=project, by=alice, username="alice")


def test_everybody_may_leave_but_take_nobody_with_them(project: Any, alice: Any, bob: Any) -> None:
    api = api_as(bob)
    assert api.delete(f"{MEMBERS}alice/").status_code == 403
    assert api.put(f"{MEMBERS}bob/", {"role": "owner"}, format="json").status_code == 403
    assert api.delete(f"{MEMBERS}bob/").status_code == 204
    assert api.get(MEMBERS).status_code == 404


def test_a_teams_people_have_its_role_and_the_highest_counts(
    project: Any, alice: Any, bob: Any, charlie: Any, crew: Team, root: Any
) -> None:
    members.set_team(project=project, by=alice, name="crew", role=Role.DEVELOPER)
    teams.add(team=crew, by=root, username="bob")
    members.set_member(project=project, by=alice, username="bob", role=Role.VIEWER)
    for user in (bob, charlie):
        assert project.allows(user, Role.DEVELOPER)
        assert not project.allows(user, Role.MAINTAINER)
        assert roles_of(user, [project]) == {project.pk: Role.DEVELOPER}
    assert api_as(charlie).get("/api/v1/projects/").json()["results"][0]["slug"] == "hello"
    rows = {row["username"]: row for row in api_as(charlie).get(MEMBERS).json()["people"]}
    assert rows["bob"] == {
        "username": "bob",
        "role": "developer",
        "own": "viewer",
        "teams": {"crew": "developer"},
        "active": True,
    }
    assert {user.username for user in project.people} == {"alice", "bob", "charlie"}


def test_who_leaves_a_team_or_whose_team_goes_sees_the_project_no_more(
    project: Any, alice: Any, charlie: Any, crew: Team, root: Any
) -> None:
    members.set_team(project=project, by=alice, name="crew", role=Role.VIEWER)
    teams.remove(team=crew, by=root, username="charlie")
    assert not project.allows(charlie, Role.VIEWER)
    teams.add(team=crew, by=root, username="charlie")
    assert project.allows(charlie, Role.VIEWER)
    members.remove_team(project=project, by=alice, name="crew")
    assert not project.allows(charlie, Role.VIEWER)
    members.set_team(project=project, by=alice, name="crew", role=Role.VIEWER)
    teams.delete(team=crew, by=root)
    assert not project.allows(charlie, Role.VIEWER)


def test_a_team_member_counts_as_a_member_for_promoting_and_approving(
    project: Any, alice: Any, charlie: Any, crew: Team
) -> None:
    from ciserver.releases import environments, policy
    from tests.ciserver.pages.seeding import make_environments

    prod = make_environments(project, "prod")[0]
    members.set_team(project=project, by=alice, name="crew", role=Role.VIEWER)
    environments.change(
        environment=prod, user=alice, promoters=["charlie"], approvers=["charlie"], approvals=1
    )
    assert policy.may_promote(charlie, prod)
    assert [user.username for user in policy.approvers(prod)] == ["charlie"]
    members.remove_team(project=project, by=alice, name="crew")
    assert not policy.may_promote(charlie, prod)
    assert policy.approvers(prod) == []


def test_the_audit_of_a_team_is_not_that_of_a_project_of_its_name(
    project: Any, alice: Any, root: Any
) -> None:
    teams.create(by=root, name="hello")
    rows = api_as(alice).get("/api/v1/audit/?project=hello").json()["results"]
    assert "team.create" not in {row["action"] for row in rows}


@pytest.mark.parametrize(
    ("url", "status"),
    [(f"{MEMBERS}nobody-at-all/", 404), ("/api/v1/projects/hello/teams/none/", 404)],
)
def test_nobody_and_no_team_are_refused_with_the_next_step(
    project: Any, alice: Any, url: str, status: int
) -> None:
    answer = api_as(alice).put(url, {"role": "viewer"}, format="json")
    assert answer.status_code == status
    assert "An administrator makes" in answer.json()["hint"]
    assert api_as(alice).put(url, {"role": "king"}, format="json").status_code == 400


def test_the_page_gives_and_takes_roles(project: Any, alice: Any, charlie: Any, crew: Team) -> None:
    client = Client()
    client.force_login(alice)
    url = "/projects/hello/members/"
    form = {"kind": "person", "name": "charlie", "role": "30"}
    assert client.post(url, form).status_code == 302
    assert project.allows(charlie, Role.MAINTAINER)
    assert client.post(url, {"kind": "team", "name": "crew", "role": "10"}).status_code == 302
    page = client.get(url).content.decode()
    assert "viewer through crew" in page
    wrong = client.post(url, form | {"name": "nobody-at-all"})
    assert wrong.status_code == 400
    assert "There is no user" in wrong.content.decode()
    assert client.post(f"{url}remove/", {"kind": "person", "name": "charlie"}).status_code == 302
    assert not project.allows(charlie, Role.DEVELOPER)
    refused = client.post(f"{url}remove/", {"kind": "person", "name": "alice"})
    assert refused.status_code == 409
    assert "last owner" in refused.content.decode()


def test_who_leaves_by_the_page_is_sent_home(project: Any, bob: Any) -> None:
    client = Client()
    client.force_login(bob)
    answer = client.post("/projects/hello/members/remove/", {"kind": "person", "name": "bob"})
    assert answer["Location"] == "/"


def test_two_owners_cannot_remove_each_other(project: Any, alice: Any, bob: Any) -> None:
    members.set_member(project=project, by=alice, username="bob", role=Role.OWNER)
    members.remove_member(project=project, by=alice, username="bob")
    with pytest.raises(Refused, match="role owner"):
        members.remove_member(project=project, by=bob, username="alice")
