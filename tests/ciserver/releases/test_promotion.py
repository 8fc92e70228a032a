"""Approvals, soak time, the stopped line, and chains that promote by themselves."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib.models import OutboxEntry
from ciserver.lib.problems import Refused
from ciserver.lib.states import IllegalMove
from ciserver.projects.models import Membership, Role
from ciserver.releases import approvals, environments, leases, policy, queue, services
from ciserver.releases.models import Deployment, DeploymentState, Environment, Host, Running
from tests.conftest import _user, api_as
from tests.together import together

pytestmark = pytest.mark.django_db


@pytest.fixture
def dora(project: Any) -> Any:
    user = _user("dora")
    Membership.objects.create(project=project, user=user, role=Role.DEVELOPER)
    return user


@pytest.fixture
def prod(hello: Any, alice: Any, bob: Any, dora: Any) -> Environment:
    """Needs two of alice, bob and dora."""
    place = hello.environments.get(name="prod")
    place.hosts.add(Host.objects.create(name="local"))
    return environments.change(
        environment=place, user=alice, approvals=2, approvers=["alice", "bob", "dora"]
    )


@pytest.fixture
def release(passed: Any, succeeded: Any, hello: Any) -> Any:
    made = services.make_release(passed())
    succeeded(made, hello.environments.get(name="qa"))
    return made


@pytest.fixture
def asked(release: Any, prod: Environment, alice: Any) -> Deployment:
    return services.promote(release=release, environment=prod, user=alice)


def approve(deployment: Deployment, *users: Any) -> Deployment:
    for user in users:
        approvals.approve(deployment=deployment, user=user)
    deployment.refresh_from_db()
    return deployment


def promised(deployment: Deployment) -> bool:
    return OutboxEntry.objects.filter(topic=leases.TOPIC, object_id=deployment.pk).exists()


def test_a_promotion_waits_for_as_many_approvals_as_its_environment_needs(
    asked: Deployment, bob: Any, dora: Any
) -> None:
    assert (asked.state, asked.reason) == ("waiting", "It needs 2 more approvals.")
    assert not promised(asked)
    assert leases.claim(asked.pk) is None
    assert approve(asked, bob).reason == "It needs 1 more approval."
    approve(asked, bob)
    assert asked.state == "waiting", "the same person counts once"
    assert approve(asked, dora).state == "queued"
    assert promised(asked)
    assert leases.claim(asked.pk) is not None


def test_nobody_approves_what_they_asked_for(asked: Deployment, alice: Any) -> None:
    with pytest.raises(Refused, match="Who asks for a promotion cannot approve it") as refusal:
        approvals.approve(deployment=asked, user=alice)
    assert refusal.value.status == 403


def test_another_token_is_no_other_person(asked: Deployment, alice: Any) -> None:
    for _ in range(2):
        answer = api_as(alice).post(f"/api/v1/deployments/{asked.pk}/approve/")
        assert (answer.status_code, answer.json()["code"]) == (403, "approval.own")
    read_only = api_as(alice, scope="read").post(f"/api/v1/deployments/{asked.pk}/approve/")
    assert read_only.status_code == 403
    assert not asked.approval_set.exists()


def test_only_the_named_approve(asked: Deployment, charlie: Any, admin_user: Any) -> None:
    for user in (charlie, admin_user):
        with pytest.raises(Refused, match="not among those who approve"):
            approvals.approve(deployment=asked, user=user)


def test_a_change_of_the_configuration_voids_what_was_approved(
    asked: Deployment, alice: Any, bob: Any, dora: Any
) -> None:
    approve(asked, bob)
    environments.change(environment=asked.environment, user=alice, variables={"GREETING": "Moin"})
    assert approve(asked, dora).reason == "It needs 1 more approval."
    assert [one.user.username for one in policy.counting(asked)] == ["dora"]
    assert approve(asked, bob).state == "queued", "bob looked again and agreed"


def test_a_change_after_the_last_approval_is_noticed_before_the_deployment_begins(
    asked: Deployment, alice: Any, bob: Any, dora: Any
) -> None:
    approve(asked, bob, dora)
    environments.change(environment=asked.environment, user=alice, memory_mib=64)
    assert leases.claim(asked.pk) is None
    asked.refresh_from_db()
    assert (asked.state, asked.reason) == ("waiting", "It needs 2 more approvals.")
    assert not promised(asked)
    assert approve(asked, bob, dora).state == "queued"


def test_the_approved_configuration_is_what_the_worker_uses(
    asked: Deployment, alice: Any, bob: Any, dora: Any
) -> None:
    approve(asked, bob, dora)
    claimed = leases.claim(asked.pk)
    assert claimed is not None
    environments.change(environment=asked.environment, user=alice, memory_mib=64)
    assert claimed.environment.memory_mib == 512
    assert claimed.configuration["memory_mib"] == 512


def test_an_approver_who_left_the_project_no_longer_counts(
    asked: Deployment, bob: Any, dora: Any
) -> None:
    approve(asked, bob)
    Membership.objects.filter(user=bob).delete()
    assert approve(asked, dora).reason == "It needs 1 more approval."


def test_an_approver_who_is_no_longer_named_does_not_count_when_a_worker_begins(
    asked: Deployment, alice: Any, bob: Any, dora: Any
) -> None:
    approve(asked, bob, dora)
    environments.change(environment=asked.environment, user=alice, approvers=["alice", "dora"])
    assert leases.claim(asked.pk) is None
    asked.refresh_from_db()
    assert (asked.state, asked.reason) == ("waiting", "It needs 1 more approval.")


def test_who_asked_must_still_be_allowed_to_when_it_begins(
    hello: Any, release: Any, prod: Environment, alice: Any, bob: Any, dora: Any
) -> None:
    mia = _user("mia")
    own = Membership.objects.create(project=hello, user=mia, role=Role.MAINTAINER)
    asked = services.promote(release=release, environment=prod, user=mia)
    assert approve(asked, bob, dora).state == "queued"
    own.delete()
    assert leases.claim(asked.pk) is None
    asked.refresh_from_db()
    assert (asked.state, asked.reason) == (
        "waiting",
        "mia may no longer promote to prod: who may asks again.",
    )
    again = services.promote(release=release, environment=prod, user=alice)
    assert (again.state, again.requested_by) == ("waiting", "alice")
    asked.refresh_from_db()
    assert asked.state == "superseded"


def test_a_word_that_comes_too_late_lets_nothing_begin(
    asked: Deployment, bob: Any, dora: Any
) -> None:
    approve(asked, bob)
    past = timezone.now() - timedelta(seconds=1)
    Deployment.objects.filter(pk=asked.pk).update(expires_at=past)
    with pytest.raises(Refused, match="waited too long for this word"):
        approvals.approve(deployment=asked, user=dora)
    queue.look_at_waiting()
    asked.refresh_from_db()
    assert (asked.state, asked.reason) == (
        "cancelled",
        "Nobody approved it in time. Ask for it again.",
    )


def test_what_was_approved_in_time_goes_on_when_that_time_is_over(
    asked: Deployment, bob: Any, dora: Any
) -> None:
    approve(asked, bob, dora)
    claimed = leases.claim(asked.pk)
    assert claimed is not None
    past = timezone.now() - timedelta(seconds=1)
    Deployment.objects.filter(pk=asked.pk).update(expires_at=past)
    assert queue.look_at_waiting() == 0
    leases.finish(claimed, DeploymentState.SUCCEEDED)
    assert claimed.state == "succeeded"


def test_approvals_end_with_their_promotion(asked: Deployment, bob: Any) -> None:
    assert asked.expires_at is not None
    approve(asked, bob)
    Deployment.objects.filter(pk=asked.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert queue.look_at_waiting() == 1
    asked.refresh_from_db()
    assert (asked.state, asked.reason) == (
        "cancelled",
        "Nobody approved it in time. Ask for it again.",
    )
    with pytest.raises(Refused, match="waits for nobody"):
        approvals.approve(deployment=asked, user=bob)


def test_what_goes_on_waiting_costs_no_write(
    asked: Deployment, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(10) as done:
        assert queue.look_at_waiting() == 0
    assert all(query["sql"].startswith("SELECT") for query in done.captured_queries)


def test_an_approver_may_refuse_and_who_asked_may_withdraw(
    asked: Deployment, release: Any, alice: Any, bob: Any, charlie: Any
) -> None:
    with pytest.raises(Refused):
        approvals.reject(deployment=asked, user=charlie)
    approvals.reject(deployment=asked, user=bob, reason="not on a friday")
    assert asked.reason == "Refused by bob: not on a friday."
    again = services.promote(release=release, environment=asked.environment, user=alice)
    assert again != asked
    approvals.reject(deployment=again, user=alice)
    assert (again.state, again.reason) == ("cancelled", "Withdrawn by alice.")


def test_a_promotion_that_nobody_could_approve_is_refused(
    release: Any, prod: Environment, alice: Any
) -> None:
    environments.change(environment=prod, user=alice, approvers=["alice", "bob"])
    with pytest.raises(Refused, match="2 approvals by others than you, and names 1"):
        services.promote(release=release, environment=prod, user=alice)


def test_one_that_waits_takes_nothing_from_one_that_was_granted(
    asked: Deployment, passed: Any, succeeded: Any, hello: Any, alice: Any, bob: Any, dora: Any
) -> None:
    approve(asked, bob, dora)
    newer = services.make_release(passed())
    succeeded(newer, hello.environments.get(name="qa"))
    waiting = services.promote(release=newer, environment=asked.environment, user=alice)
    asked.refresh_from_db()
    assert (asked.state, waiting.state) == ("queued", "waiting")
    approve(waiting, bob, dora)
    asked.refresh_from_db()
    assert (asked.state, waiting.state) == ("superseded", "queued"), "newest approved wins"


def test_a_way_back_needs_no_approval_and_takes_the_place_of_what_waits(
    asked: Deployment, passed: Any, succeeded: Any, alice: Any
) -> None:
    older = services.make_release(passed(ref="refs/heads/older"))
    succeeded(older, asked.environment)
    back = services.roll_back(environment=asked.environment, release=older, user=alice)
    assert back.state == "queued"
    asked.refresh_from_db()
    assert asked.state == "superseded"


def test_soak_time_holds_a_promotion_until_it_is_over(hello: Any, release: Any, alice: Any) -> None:
    prod = hello.environments.get(name="prod")
    environments.change(environment=hosted(prod), user=alice, soak_minutes=30)
    served_since(release, minutes=10)
    waiting = services.promote(release=release, environment=prod, user=alice)
    assert waiting.state == "waiting"
    assert waiting.reason == "It must run in qa for 20 min more."
    assert queue.look_at_waiting() == 0
    served_since(release, minutes=31)
    assert queue.look_at_waiting() == 1
    waiting.refresh_from_db()
    assert (waiting.state, waiting.reason) == ("queued", "")


def test_a_release_that_was_replaced_too_early_never_soaks(
    hello: Any, release: Any, passed: Any, succeeded: Any, alice: Any
) -> None:
    prod = hello.environments.get(name="prod")
    environments.change(environment=hosted(prod), user=alice, soak_minutes=30)
    served_since(release, minutes=100)
    newer = services.make_release(passed())
    succeeded(newer, hello.environments.get(name="qa"))
    served_since(newer, minutes=90)
    with pytest.raises(Refused, match="v1 was replaced in qa before it had run there for 30 min"):
        services.promote(release=release, environment=prod, user=alice)
    assert services.promote(release=newer, environment=prod, user=alice).state == "queued"


def hosted(place: Environment) -> Environment:
    place.hosts.add(Host.objects.get_or_create(name="local")[0])
    return place


def served_since(release: Any, *, minutes: int) -> None:
    then = timezone.now() - timedelta(minutes=minutes)
    Deployment.objects.filter(release=release, environment__name="qa").update(finished_at=then)


def test_what_is_unhealthy_before_does_not_go_on(hello: Any, release: Any, alice: Any) -> None:
    qa, prod = hello.environments.all()
    Running.objects.create(
        environment=qa, host=Host.objects.create(name="a"), release=release, container_id="c",
        digest=release.digest, healthy=False, since=timezone.now(),
    )  # fmt: skip
    with pytest.raises(Refused, match="v1 is unhealthy in qa now"):
        services.promote(release=release, environment=prod, user=alice)
    Running.objects.update(healthy=True, digest="sha256:other")
    with pytest.raises(Refused, match="something else than v1"):
        services.promote(release=release, environment=prod, user=alice)


def test_a_stopped_line_lets_only_the_way_back_through(
    hello: Any, release: Any, passed: Any, succeeded: Any, alice: Any, admin_user: Any
) -> None:
    qa, prod = hello.environments.all()
    queued = services.promote(release=release, environment=prod, user=alice)
    with pytest.raises(Refused, match="Only an administrator"):
        approvals.stop(user=alice, reason="incident 12")
    approvals.stop(user=admin_user, reason="incident 12")
    assert leases.claim(queued.pk) is None, "what had not begun waits"
    queued.refresh_from_db()
    assert queued.state == "waiting"
    assert "incident 12" in queued.reason
    with pytest.raises(Refused, match="The line is stopped by admin: incident 12"):
        services.promote(release=release, environment=qa, user=alice)
    newer = services.make_release(passed())
    assert newer.deployments.get().state == "waiting", "an automatic one waits for its turn"
    back = services.roll_back(environment=qa, release=release, user=alice)
    assert leases.claim(back.pk) is not None
    approvals.resume(user=admin_user)
    assert queue.look_at_waiting() == 1
    queued.refresh_from_db()
    assert queued.state == "queued"
    assert list(AuditEntry.objects.filter(action__startswith="line.").values_list("action")) == [
        ("line.resume",),
        ("line.stop",),
    ]


@pytest.mark.django_db(transaction=True)
def test_nothing_begins_once_the_line_is_stopped_however_close(
    release: Any, hello: Any, alice: Any
) -> None:
    """Whoever takes it up at the same moment began before, or not at all."""
    prod = hello.environments.get(name="prod")

    def begin() -> Any:
        return leases.claim(asked.pk)

    def stop() -> bool:
        approvals.stop(user=alice, reason="incident", project=hello)
        return Deployment.objects.filter(pk=asked.pk, state=DeploymentState.RUNNING).exists()

    for _ in range(15):
        asked = services.promote(release=release, environment=prod, user=alice)
        claimed, began_before = together(lambda act: act(), [begin, stop])
        assert (claimed is not None) == began_before
        Deployment.objects.filter(pk=asked.pk).update(state="cancelled", lease_until=None)
        approvals.resume(user=alice, project=hello)


def test_a_projects_line_is_its_maintainers(hello: Any, release: Any, alice: Any, bob: Any) -> None:
    with pytest.raises(Refused, match="maintainer"):
        approvals.stop(user=bob, reason="stop", project=hello)
    with pytest.raises(Refused, match="Say why"):
        approvals.stop(user=alice, reason=" ", project=hello)
    approvals.stop(user=alice, reason="incident", project=hello)
    with pytest.raises(Refused, match="stopped already"):
        approvals.stop(user=alice, reason="again", project=hello)
    approvals.resume(user=alice, project=hello)
    with pytest.raises(Refused, match="not stopped"):
        approvals.resume(user=alice, project=hello)


def test_a_success_goes_on_by_itself_where_the_next_place_is_automatic(
    hello: Any, passed: Any, alice: Any
) -> None:
    qa, prod = hello.environments.all()
    Environment.objects.filter(pk=prod.pk).update(auto=True)
    release = services.make_release(passed())
    assert [d.environment for d in release.deployments.all()] == [qa], "prod waits for qa"
    claimed = leases.claim(release.deployments.get().pk)
    assert claimed is not None
    leases.finish(claimed, DeploymentState.SUCCEEDED)
    onward = release.deployments.get(environment=prod)
    assert (onward.kind, onward.state, onward.requested_by) == ("auto", "queued", "gantry")
    back = services.roll_back(environment=qa, release=release, user=alice)
    running = leases.claim(back.pk)
    assert running is not None
    leases.finish(running, DeploymentState.SUCCEEDED)
    assert prod.deployments.count() == 1, "a roll-back is not passed on"


def test_who_may_promote_is_said_for_each_environment(
    hello: Any, release: Any, alice: Any, bob: Any
) -> None:
    prod = hosted(hello.environments.get(name="prod"))
    with pytest.raises(Refused, match="This needs the role maintainer in hello"):
        services.promote(release=release, environment=prod, user=bob)
    environments.change(environment=prod, user=alice, promoters=["bob"])
    assert services.promote(release=release, environment=prod, user=bob)
    environments.change(environment=prod, user=alice, promoters=[], promote_role=Role.OWNER)
    assert not policy.may_promote(bob, Environment.objects.get(pk=prod.pk))
    environments.change(environment=prod, user=alice, promoters=["bob"])
    Membership.objects.filter(user=bob).delete()
    assert not policy.may_promote(bob, prod)


def test_changes_are_checked_and_written_down(hello: Any, alice: Any, bob: Any) -> None:
    prod = hosted(hello.environments.get(name="prod"))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"approvals": 1}, "1 approvals need as many approvers"),
        ({"approvers": ["charlie"]}, "'charlie' is not a member"),
        ({"cpus": 0}, "cpus must be between"),
        ({"variables": {"A B": "x"}}, "cannot be a variable's name"),
        ({"hosts": []}, "needs a host"),
        ({"hosts": ["elsewhere"]}, "no host 'elsewhere'"),
    ]
    for change, words in wrong:
        with pytest.raises(Refused, match=words):
            environments.change(environment=prod, user=alice, **change)
    with pytest.raises(Refused, match="maintainer"):
        environments.change(environment=prod, user=bob, pids=9)
    environments.change(environment=prod, user=alice, variables={"A": "1"}, pids=99)
    entry = AuditEntry.objects.first()
    assert entry is not None
    assert entry.detail == {"variables": [{}, {"A": "1"}], "pids": [512, 99]}


def test_all_of_it_goes_over_the_api(
    api: Any, asked: Deployment, bob: Any, dora: Any, charlie: Any
) -> None:
    url = f"/api/v1/deployments/{asked.pk}/"
    assert api.get(url).json()["reason"] == "It needs 2 more approvals."
    assert api.post(f"{url}approve/").json()["code"] == "approval.own"
    assert api_as(charlie).post(f"{url}approve/").status_code == 404
    answer = api_as(bob).post(f"{url}approve/")
    assert [one["user"] for one in answer.json()["approvals"]] == ["bob"]
    assert api_as(dora).post(f"{url}approve/").json()["state"] == "queued"
    answer = api.post(f"{url}reject/", {"reason": "wait"}, format="json")
    assert answer.json()["reason"] == "Withdrawn by alice: wait."
    place = f"/api/v1/environments/{asked.environment_id}/"
    changed = api.patch(place, {"approvals": 0, "variables": {"A": "1"}}, format="json").json()
    assert (changed["approvals"], changed["variables"]) == (0, {"A": "1"})
    assert api_as(bob).patch(place, {"approvals": 0}, format="json").status_code == 403
    stop = api.post("/api/v1/stops/", {"project": "hello", "reason": "incident"}, format="json")
    assert stop.status_code == 201
    assert api_as(bob).post(f"/api/v1/stops/{stop.json()['id']}/resume/").status_code == 403
    assert api.post(f"/api/v1/stops/{stop.json()['id']}/resume/").json()["ended_by"] == "alice"
    assert api_as(charlie).get("/api/v1/stops/").json()["results"] == []


def test_an_approval_of_what_was_looked_at_does_not_cover_what_came_after(
    asked: Deployment, alice: Any, bob: Any
) -> None:
    seen = policy.fingerprint(asked.release, asked.environment)
    environments.change(environment=asked.environment, user=alice, variables={"A": "1"})
    with pytest.raises(Refused, match="changed after you looked"):
        approvals.approve(deployment=asked, user=bob, seen=seen)
    now = policy.fingerprint(asked.release, Environment.objects.get(pk=asked.environment_id))
    approvals.approve(deployment=asked, user=bob, seen=now)


def test_a_way_back_brings_the_configuration_that_the_release_ran_with(
    hello: Any, passed: Any, alice: Any
) -> None:
    """Else a change that nobody approved could travel with it."""
    qa = hosted(hello.environments.get(name="qa"))
    environments.change(environment=qa, user=alice, variables={"LEVEL": "info"}, memory_mib=256)
    release = services.make_release(passed())
    first = leases.claim(release.deployments.get().pk)
    assert first is not None
    leases.finish(first, DeploymentState.SUCCEEDED)
    environments.change(environment=qa, user=alice, variables={"LEVEL": "debug"}, memory_mib=512)
    back = services.roll_back(environment=qa, release=release, user=alice)
    claimed = leases.claim(back.pk)
    assert claimed is not None
    assert (claimed.environment.variables, claimed.environment.memory_mib) == (
        {"LEVEL": "info"},
        256,
    )
    assert claimed.configuration["variables"] == {"LEVEL": "info"}
    leases.finish(claimed, DeploymentState.SUCCEEDED)
    qa.refresh_from_db()
    assert qa.variables == {"LEVEL": "debug"}, "what is wanted stays as it was set"
    again = services.promote(release=release, environment=qa, user=alice)
    forward = leases.claim(again.pk)
    assert forward is not None
    assert forward.environment.variables == {"LEVEL": "debug"}


@pytest.mark.django_db(transaction=True)
def test_approvals_and_promotions_at_once_queue_the_newest_approved_and_only_it(
    hello: Any, prod: Environment, passed: Any, succeeded: Any, alice: Any, bob: Any, dora: Any
) -> None:
    qa = hello.environments.get(name="qa")
    made = [services.make_release(passed()) for _ in range(3)]
    for one in made:
        succeeded(one, qa)

    def act(number: int) -> None:
        if number % 5 == 0:
            services.promote(release=made[number % 3], environment=prod, user=alice)
        for row in Deployment.objects.filter(environment=prod, state="waiting"):
            with suppress(Refused, IllegalMove):
                approvals.approve(deployment=row, user=(bob, dora)[number % 2])

    together(act, range(30))
    for user in (bob, dora):
        for row in prod.deployments.filter(state="waiting"):
            approvals.approve(deployment=row, user=user)
    states = list(prod.deployments.values_list("state", flat=True))
    assert states == ["queued"] + ["superseded"] * (len(states) - 1)
    newest = prod.deployments.get(state="queued")
    assert {one.user for one in policy.counting(newest)} == {bob, dora}
    waked = OutboxEntry.objects.filter(topic=leases.TOPIC)
    assert [entry.object_id for entry in waked if entry.object_id in _ids(prod)] == [newest.pk]
    assert AuditEntry.broken_at() is None


def _ids(place: Environment) -> set[int]:
    return set(place.deployments.values_list("pk", flat=True))
