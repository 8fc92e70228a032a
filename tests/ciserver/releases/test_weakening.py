"""Nobody lets his own promotion through by weakening the policy that holds it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ciserver.accounts.models import AuditEntry, User
from ciserver.lib.problems import Refused
from ciserver.projects.models import Membership, Project, Role
from ciserver.releases import (
    approvals,
    archiving,
    environments,
    leases,
    queue,
    removal,
    services,
)
from ciserver.releases.models import Deployment, Environment, GivenUp, Host
from tests.conftest import _user, api_as

pytestmark = pytest.mark.django_db


def member(project: Any, name: str, role: Role) -> Any:
    user = _user(name)
    Membership.objects.create(project=project, user=user, role=role)
    return user


@pytest.fixture
def olga(project: Any) -> Any:
    """Another owner."""
    return member(project, "olga", Role.OWNER)


@pytest.fixture
def mia(project: Any) -> Any:
    return member(project, "mia", Role.MAINTAINER)


@pytest.fixture
def prod(hello: Any, olga: Any, bob: Any) -> Environment:
    """Needs bob's or olga's approval."""
    place = hello.environments.get(name="prod")
    place.hosts.add(Host.objects.create(name="local"))
    return environments.change(
        environment=place, user=olga, approvals=1, approvers=["bob", "olga"], soak_minutes=0
    )


@pytest.fixture
def release(passed: Any, succeeded: Any, hello: Any) -> Any:
    made = services.make_release(passed())
    succeeded(made, hello.environments.get(name="qa"))
    return made


def looked_at(deployment: Deployment) -> str:
    queue.look_at_waiting()
    deployment.refresh_from_db()
    return deployment.state


WEAKER: list[dict[str, Any]] = [
    {"approvals": 0},
    {"soak_minutes": 0},
    {"promote_role": Role.DEVELOPER},
    {"approvers": ["bob", "mia", "olga"]},
    {"promoters": ["mia"]},
    {"auto": True},
]


def test_a_maintainer_cannot_weaken_what_holds_his_promotion(
    release: Any, prod: Environment, mia: Any, olga: Any
) -> None:
    asked = services.promote(release=release, environment=prod, user=mia)
    environments.change(environment=prod, user=olga, soak_minutes=1)
    place, api = f"/api/v1/environments/{prod.pk}/", api_as(mia)
    for weaker in WEAKER:
        answer = api.patch(place, weaker, format="json")
        assert (answer.status_code, answer.json()["code"]) == (403, "role"), weaker
        assert "Only an owner of hello weakens the policy of prod" in answer.json()["detail"]
    assert api.patch(place, {"confirm_policy": True}, format="json").status_code == 403
    fresh = Environment.objects.get(pk=prod.pk)
    assert (fresh.approvals, fresh.soak_minutes, fresh.auto) == (1, 1, False)
    assert list(fresh.approvers.values_list("username", flat=True)) == ["bob", "olga"]
    assert looked_at(asked) == "waiting"
    stricter = {"approvals": 2, "soak_minutes": 9, "promoters": [], "pids": 99}
    assert api.patch(place, stricter, format="json").status_code == 200


def test_an_owner_is_held_to_what_he_lowered_until_another_confirms_it(
    release: Any, prod: Environment, alice: Any, olga: Any
) -> None:
    place, api = f"/api/v1/environments/{prod.pk}/", api_as(alice)
    asked = services.promote(release=release, environment=prod, user=alice)
    lowered = api.patch(place, {"approvals": 0}, format="json").json()
    assert (lowered["approvals"], lowered["kept_policy"]) == (0, {"alice": {"approvals": 1}})
    assert looked_at(asked) == "waiting"

    approvals.reject(deployment=asked, user=alice)
    again = services.promote(release=release, environment=prod, user=alice)
    assert (again.state, again.reason) == ("waiting", "It needs 1 more approval.")
    assert again.expires_at is not None
    preview = f"/api/v1/releases/{release.pk}/preview/?environment=prod"
    assert api.get(preview).json()["waits_for"] == ["It needs 1 more approval."]
    assert api_as(olga).get(preview).json()["waits_for"] == []

    own = api.patch(place, {"confirm_policy": True}, format="json")
    assert (own.status_code, own.json()["code"]) == (403, "environment.own")
    confirmed = api_as(olga).patch(place, {"confirm_policy": True}, format="json").json()
    assert confirmed["kept_policy"] == {}
    assert looked_at(again) == "queued"
    said = AuditEntry.objects.filter(target=str(prod), action__startswith="environment.")
    assert [(entry.actor, entry.action) for entry in said[:2]] == [
        ("olga", "environment.confirm"),
        ("alice", "environment.weaken"),
    ]


def test_what_an_owner_lowers_holds_for_what_others_ask(
    release: Any, prod: Environment, alice: Any, mia: Any
) -> None:
    asked = services.promote(release=release, environment=prod, user=mia)
    environments.change(environment=prod, user=alice, approvals=0)
    assert looked_at(asked) == "queued"


def test_a_queued_promotion_is_held_again_by_a_worker(
    release: Any, prod: Environment, alice: Any, olga: Any
) -> None:
    environments.change(environment=prod, user=alice, approvals=0)
    environments.change(environment=prod, user=olga, confirm_policy=True)
    asked = services.promote(release=release, environment=prod, user=alice)
    assert asked.state == "queued"
    environments.change(environment=prod, user=olga, approvals=1)
    environments.change(environment=prod, user=alice, approvals=0)
    assert leases.claim(asked.pk) is None
    asked.refresh_from_db()
    assert asked.state == "waiting"


def test_soak_time_is_kept_too_and_so_for_what_goes_by_itself(
    release: Any, prod: Environment, alice: Any
) -> None:
    environments.change(environment=prod, user=alice, approvals=0, soak_minutes=30)
    environments.change(environment=prod, user=alice, soak_minutes=0, auto=True)
    kept = Environment.objects.get(pk=prod.pk)
    assert kept.kept_policy == {"alice": {"approvals": 1, "soak_minutes": 30}}
    Deployment.objects.filter(release=release).update(finished_at=release.created_at)
    asked = services.promote(release=release, environment=prod, user=alice)
    both = "It must run in qa for 30 min more. It needs 1 more approval."
    assert asked.reason == both
    approvals.reject(deployment=asked, user=alice)
    assert queue.ask(release, kept, "auto", queue.GANTRY).reason == both

    environments.change(environment=prod, user=alice, approvals=1, soak_minutes=30)
    assert Environment.objects.get(pk=prod.pk).kept_policy == {}, "it is as strict as before"


def test_a_promotion_that_nobody_else_could_approve_is_refused_for_who_lowered_it(
    release: Any, prod: Environment, alice: Any
) -> None:
    environments.change(environment=prod, user=alice, approvals=0, approvers=[])
    with pytest.raises(Refused, match="needs 1 approvals by others than you"):
        services.promote(release=release, environment=prod, user=alice)


def removed(name: str, project: Any, user: Any) -> None:
    place = project.environments.get(name=name)
    place.hosts.clear()
    archiving.remove(environment=place, user=user, confirm=f"hello@{name}")
    assert removal.remove_environment(place.pk)


def test_an_owner_gets_nothing_into_production_by_removing_what_comes_before_it(
    passed: Any, prod: Environment, alice: Any, olga: Any, mia: Any, bob: Any, hello: Any
) -> None:
    never_ran = services.make_release(passed())
    never_ran.deployments.update(state="failed")
    with pytest.raises(Refused, match="has not run healthy in qa yet"):
        services.promote(release=never_ran, environment=prod, user=alice)
    removed("qa", hello, alice)
    audited = AuditEntry.objects.get(action="environment.remove")
    assert (audited.detail["after"], audited.detail["to_confirm"]) == ("prod", True)

    asked = services.promote(release=never_ran, environment=prod, user=alice)
    approvals.approve(deployment=asked, user=bob)
    assert asked.state == "waiting"
    assert looked_at(asked) == "waiting"
    assert asked.reason == (
        "qa, where it had to run first, was removed: another owner of hello confirms that, by"
        " 'gantry policy hello prod --confirm'."
    )
    environments.change(environment=prod, user=alice, pids=77, approvals=0)
    assert "for still needs 1 approval and a word on the removal of qa" in _page_of(prod, alice)
    with pytest.raises(Refused, match="cannot confirm it"):
        environments.change(environment=prod, user=alice, confirm_policy=True)
    assert looked_at(asked) == "waiting"
    by_itself = queue.ask(never_ran, prod, "auto", queue.GANTRY)
    assert by_itself.reason.startswith("qa, where it had to run first, was removed")

    environments.change(environment=prod, user=olga, confirm_policy=True)
    assert looked_at(by_itself) == "queued"
    confirmed = AuditEntry.objects.get(action="environment.confirm")
    assert confirmed.detail["of"]["alice"]["skipped"] == ["qa"]


def test_approvals_are_void_once_a_release_need_not_run_where_it_had_to(
    release: Any, prod: Environment, alice: Any, olga: Any, bob: Any, hello: Any
) -> None:
    environments.change(environment=prod, user=olga, approvals=2)
    asked = services.promote(release=release, environment=prod, user=alice)
    approvals.approve(deployment=asked, user=bob)
    assert asked.reason == "It needs 1 more approval."
    removed("qa", hello, olga)
    assert looked_at(asked) == "waiting"
    assert asked.reason == "It needs 2 more approvals.", "it is not alice who removed it"


def test_where_nothing_is_asked_for_a_removal_holds_up_nobody_and_lets_nothing_go_by_itself(
    passed: Any, hello: Any, alice: Any, client: Any
) -> None:
    prod = hello.environments.get(name="prod")
    prod.hosts.add(Host.objects.create(name="local"))
    environments.change(environment=prod, user=alice, auto=True)
    client.force_login(alice)
    told = client.get("/projects/hello/environments/qa/remove/").content.decode()
    assert "prod becomes the first environment. It gets no new release by itself" in told
    assert "until another owner confirms" not in told
    removed("qa", hello, alice)
    audited = AuditEntry.objects.get(action="environment.remove")
    assert audited.detail["auto"] == [True, False]
    release = services.make_release(passed())
    assert not release.deployments.exists(), "each push would have gone to production"
    fresh = Environment.objects.get(pk=prod.pk)
    assert (fresh.auto, fresh.kept_policy) == (False, {})
    assert services.promote(release=release, environment=fresh, user=alice).state == "queued"


SHOP = "shop.example.org"


@pytest.fixture
def busy(prod: Environment, olga: Any) -> Environment:
    """What people reach as shop.example.org."""
    return environments.change(environment=prod, user=olga, domains=[SHOP])


@pytest.fixture
def canary(hello: Any) -> Environment:
    """A place that asks for nothing."""
    return services.create_environment(project=hello, name="canary")


def domains_of(user: Any, environment: Environment, *names: str) -> Any:
    """The answer to ``user``, who lets ``environment`` have these."""
    place = f"/api/v1/environments/{environment.pk}/"
    return api_as(user).patch(place, {"domains": names}, format="json")


def test_a_maintainer_cannot_lead_productions_domain_to_a_place_without_approvals(
    busy: Environment, canary: Environment, mia: Any
) -> None:
    answer = domains_of(mia, busy)
    assert (answer.status_code, answer.json()["code"]) == (403, "role")
    assert "Only owners of hello take shop.example.org away from prod" in answer.json()["detail"]
    assert domains_of(mia, canary, SHOP).json()["code"] == "environment.domain-taken"
    assert domains_of(mia, busy, SHOP, "www.example.org").status_code == 200, "more is no less"


def test_an_owner_who_gave_a_domain_up_needs_another_person_to_lead_it_elsewhere(
    busy: Environment, canary: Environment, olga: Any, alice: Any, mia: Any
) -> None:
    lowered = {"domains": [], "approvals": 0}
    place = f"/api/v1/environments/{busy.pk}/"
    given = api_as(alice).patch(place, lowered, format="json").json()
    assert [(row["address"], row["by"], row["free_at"]) for row in given["given_up"]] == [
        (SHOP, "alice", None)
    ]
    weakened = AuditEntry.objects.filter(action="environment.weaken").first()
    assert weakened is not None
    assert weakened.detail["domains"] == [[SHOP], []]

    for who in (alice, mia):
        refused = domains_of(who, canary, SHOP)
        assert (refused.status_code, refused.json()["code"]) == (
            403,
            "environment.address-held",
        )
    assert domains_of(olga, canary, SHOP).json()["domains"] == [SHOP]
    took = AuditEntry.objects.get(action="environment.take")
    assert (took.actor, took.target, took.detail) == (
        "olga",
        "hello@canary",
        {"address": SHOP, "of": "hello@prod", "given_up_by": "alice"},
    )
    assert not busy.given_up.exists()


def test_one_who_approves_there_may_lead_it_elsewhere_too_and_anybody_back(
    busy: Environment, canary: Environment, alice: Any, mia: Any, olga: Any
) -> None:
    environments.change(environment=busy, user=olga, approvers=["bob", "mia", "olga"])
    domains_of(alice, busy)
    assert domains_of(mia, busy, SHOP).status_code == 200
    assert domains_of(mia, busy).status_code == 403
    domains_of(alice, busy)
    assert domains_of(mia, canary, SHOP).status_code == 200


def test_a_domain_is_not_led_away_through_another_project(
    busy: Environment, alice: Any, charlie: Any
) -> None:
    from ciserver.projects.services import create

    domains_of(alice, busy)
    own = services.create_environment(project=create(slug="own", owner=alice), name="prod")
    assert domains_of(alice, own, SHOP).json()["code"] == "environment.address-held"
    strange = services.create_environment(project=create(slug="x", owner=charlie), name="prod")
    member(strange.project, "dan", Role.MAINTAINER)
    told = domains_of(User.objects.get(username="dan"), strange, SHOP).json()["detail"]
    assert "another environment" in told
    assert "hello" not in told


@pytest.mark.parametrize("goes", ["environment", "project"])
def test_what_is_removed_altogether_gives_its_domains_up_as_well(
    busy: Environment, alice: Any, olga: Any, goes: str
) -> None:
    from ciserver.projects.services import create

    own = services.create_environment(project=create(slug="own", owner=alice), name="prod")
    member(own.project, "owen", Role.OWNER)
    busy.hosts.clear()
    port = busy.port
    if goes == "environment":
        archiving.remove(environment=busy, user=alice, confirm="hello@prod")
        assert removal.remove_environment(busy.pk)
    else:
        archiving.delete(project=busy.project, user=alice, confirm="hello", now=True)
        removal._delete_pipelines(Project.objects.get(pk=busy.project_id))
    answer = domains_of(alice, own, SHOP)
    assert answer.json()["code"] == "environment.address-held"
    assert "led to hello@prod, which asked for approvals; you gave it up" in answer.json()["detail"]
    assert services.create_environment(project=own.project, name="more").port != port
    told = domains_of(User.objects.get(username="owen"), own, SHOP)
    assert told.json()["domains"] == [SHOP]
    assert AuditEntry.objects.get(action="environment.take").detail["of"] == "hello@prod"


def test_who_has_a_project_deleted_gives_its_domains_up_whoever_archived_it(
    busy: Environment, alice: Any, olga: Any
) -> None:
    from ciserver.projects.services import create

    own = services.create_environment(project=create(slug="own", owner=alice), name="prod")
    busy.hosts.clear()
    environments.change(environment=busy, user=alice, approvals=0)
    archiving.archive(project=busy.project, user=olga)
    archiving.delete(project=busy.project, user=alice, confirm="hello", now=True)
    removal._delete_pipelines(Project.objects.get(pk=busy.project_id))
    assert domains_of(alice, own, SHOP).json()["code"] == "environment.address-held"


def test_where_only_soak_time_was_asked_for_a_domain_is_free_after_as_long(
    busy: Environment, canary: Environment, alice: Any, olga: Any
) -> None:
    environments.change(environment=busy, user=olga, approvals=0, approvers=[], soak_minutes=30)
    domains_of(alice, busy)
    assert domains_of(alice, canary, SHOP).json()["code"] == "environment.address-held"
    GivenUp.objects.update(at=timezone.now() - timedelta(minutes=31))
    assert domains_of(alice, canary, SHOP).json()["domains"] == [SHOP]


def test_what_nobody_guards_is_moved_by_who_may_promote_there(
    hello: Any, canary: Environment, mia: Any, alice: Any
) -> None:
    qa = hello.environments.get(name="qa")
    domains_of(mia, qa, SHOP)
    environments.change(environment=qa, user=alice, promote_role=Role.OWNER)
    assert domains_of(mia, qa).json()["code"] == "role"
    environments.change(environment=qa, user=alice, promote_role=Role.MAINTAINER)
    domains_of(mia, qa)
    assert domains_of(mia, canary, SHOP).json()["domains"] == [SHOP]


def test_the_environments_page_says_who_gave_a_domain_up(
    busy: Environment, canary: Environment, alice: Any, client: Any
) -> None:
    domains_of(alice, busy)
    client.force_login(alice)
    page = client.get(busy.get_absolute_url()).content.decode()
    assert f"{SHOP} by alice: put back here, or elsewhere by another owner" in page
    form = client.get(f"{canary.get_absolute_url()}edit/")
    fields = form.context["form"].initial | {"hosts": "local", "domains": SHOP}
    answer = client.post(f"{canary.get_absolute_url()}edit/", fields)
    assert answer.status_code == 400
    assert "shop.example.org led to hello@prod, which asks for approvals" in answer.content.decode()


def test_a_port_is_as_guarded_as_a_domain(
    prod: Environment, canary: Environment, hello: Any, mia: Any, alice: Any, olga: Any,
    settings: Any,
) -> None:  # fmt: skip
    """Whoever is sent to a host's port is sent to what its policy let through."""

    def on(user: Any, environment: Environment, port: int) -> Any:
        place = f"/api/v1/environments/{environment.pk}/"
        return api_as(user).patch(place, {"port": port}, format="json")

    old = prod.port
    assert old is not None
    first = settings.GANTRY.deploy_ports.start
    new, third = first + 40, first + 41
    assert on(mia, prod, new).json()["code"] == "role"
    assert on(mia, canary, old).json()["code"] == "environment.port-taken"
    assert on(alice, prod, new).json()["port"] == new
    assert on(alice, canary, old).json()["code"] == "environment.address-held"
    assert services.create_environment(project=hello, name="more").port != old
    assert f"Port {old} by alice" in _page_of(prod, alice)
    assert on(olga, canary, old).json()["port"] == old
    assert on(mia, canary, third).json()["port"] == third
    assert [on(mia, canary, port).json()["code"] for port in (80, 0)] == [
        "environment.port",
        "environment.number",
    ]


def _page_of(environment: Environment, user: Any) -> str:
    from django.test import Client

    client = Client()
    client.force_login(user)
    return client.get(environment.get_absolute_url()).content.decode()
