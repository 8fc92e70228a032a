"""Moving what serves to another host: who may, when it is refused, and what comes before it."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib.models import OutboxEntry
from ciserver.lib.problems import Refused
from ciserver.projects.models import Membership, Role
from ciserver.releases import (
    approvals,
    environments,
    fleet,
    leases,
    leaving,
    moving,
    policy,
    queue,
    services,
)
from ciserver.releases.models import Deployment, Environment, Host, Running

pytestmark = pytest.mark.django_db


@pytest.fixture
def qa(hello: Any, passed: Any, serves: Any, admin_user: Any) -> Environment:
    """The release v1 serves it on the host local; there is a host edge that nothing uses."""
    place: Environment = hello.environments.get(name="qa")
    place.hosts.add(Host.objects.get_or_create(name="local")[0])
    serves(services.make_release(passed()), place)
    fleet.add(user=admin_user, name="edge", address="root@127.0.0.1:1")
    return place


def take(deployment: Deployment) -> Deployment:
    claimed = leases.claim(deployment.pk)
    assert claimed is not None
    return claimed


def test_a_move_is_asked_for_written_down_and_promised(qa: Environment, admin_user: Any) -> None:
    asked = moving.move(environment=qa, user=admin_user, to="edge")
    assert (asked.kind, asked.state, asked.release.name) == ("move", "queued", "v1")
    assert (str(asked.from_host), str(asked.to_host)) == ("local", "edge")
    assert OutboxEntry.objects.filter(topic="deployment.queued", object_id=asked.pk).exists()
    entry = AuditEntry.objects.get(action="deployment.move")
    assert (entry.actor, entry.target) == ("admin", "hello@qa")
    assert (entry.detail["from"], entry.detail["to"]) == ("local", "edge")
    assert entry.detail["digest"] == asked.release.digest


def test_it_starts_what_serves_with_the_configuration_that_serves(
    qa: Environment, admin_user: Any, alice: Any
) -> None:
    environments.change(environment=qa, user=alice, variables={"NEW": "1"}, memory_mib=64)
    claimed = take(moving.move(environment=qa, user=admin_user, to="edge"))
    assert claimed.configuration["variables"] == {}
    assert claimed.configuration["memory_mib"] == claimed.environment.memory_mib == 512
    assert claimed.configuration["hosts"] == ["edge"]
    assert leaving.hosts_of(claimed) == [claimed.to_host]


def test_once_it_is_there_the_old_host_is_none_of_the_environments(
    qa: Environment, admin_user: Any
) -> None:
    claimed = take(moving.move(environment=qa, user=admin_user, to="edge"))
    with leases.Lease(claimed) as lease:
        for _ in range(2):
            leaving.put_in_place(claimed, lease)
            assert [str(host) for host in qa.hosts.all()] == ["edge"]
        Deployment.objects.filter(pk=claimed.pk).update(fence=claimed.fence + 1)
        qa.hosts.set([claimed.from_host])
        with pytest.raises(leases.LeaseLost):
            leaving.put_in_place(claimed, lease)
    assert [str(host) for host in qa.hosts.all()] == ["local"]


@pytest.mark.parametrize(
    ("to", "host", "code"),
    [
        ("nowhere", "", "host.unknown"),
        ("local", "", "move.there"),
        ("edge", "elsewhere", "command.host"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_next_step(
    qa: Environment, admin_user: Any, to: str, host: str, code: str
) -> None:
    with pytest.raises(Refused) as refusal:
        moving.move(environment=qa, user=admin_user, to=to, host=host)
    assert refusal.value.code == code
    assert refusal.value.hint
    assert not Deployment.objects.filter(kind="move").exists()


def test_of_several_hosts_one_is_named(qa: Environment, admin_user: Any) -> None:
    other = Host.objects.create(name="second")
    qa.hosts.add(other)
    served = qa.running.get()
    qa.running.create(
        host=other, release=served.release, digest=served.digest, since=timezone.now()
    )
    with pytest.raises(Refused, match="runs on several hosts"):
        moving.move(environment=qa, user=admin_user, to="edge")
    asked = moving.move(environment=qa, user=admin_user, to="edge", host="second")
    assert policy.hosts_after(asked) == ["edge", "local"]


def test_a_developer_and_who_may_not_use_the_host_move_nothing(
    qa: Environment, alice: Any, bob: Any
) -> None:
    with pytest.raises(Refused) as refusal:
        moving.move(environment=qa, user=bob, to="edge")
    assert refusal.value.status == 403
    with pytest.raises(Refused, match="no host 'edge' that you may use"):
        moving.move(environment=qa, user=alice, to="edge")


def test_it_is_not_moved_while_something_else_is_on_its_way_or_it_was_stopped(
    qa: Environment, admin_user: Any
) -> None:
    queued = services.promote(release=qa.running.get().release, environment=qa, user=admin_user)
    with pytest.raises(Refused, match="v1 is on its way"):
        moving.move(environment=qa, user=admin_user, to="edge")
    Deployment.objects.filter(pk=queued.pk).update(state="cancelled")
    qa.running.update(stopped_by="alice")
    with pytest.raises(Refused, match="alice stopped it on local") as refusal:
        moving.move(environment=qa, user=admin_user, to="edge")
    assert "gantry start hello@qa --host local" in refusal.value.hint


def test_a_stopped_line_holds_it_and_it_goes_on_afterwards(
    qa: Environment, admin_user: Any
) -> None:
    asked = moving.move(environment=qa, user=admin_user, to="edge")
    approvals.stop(user=admin_user, reason="incident")
    assert leases.claim(asked.pk) is None
    asked.refresh_from_db()
    assert (asked.state, "incident" in asked.reason) == ("waiting", True)
    with pytest.raises(Refused, match="The line is stopped"):
        moving.move(environment=qa, user=admin_user, to="edge")
    approvals.resume(user=admin_user)
    queue.look_at_waiting()
    assert take(asked).state == "running"


def test_it_takes_nothing_from_a_promotion_and_gives_way_to_one(
    hello: Any, passed: Any, serves: Any, qa: Environment, admin_user: Any, bob: Any
) -> None:
    prod = hello.environments.get(name="prod")
    serves(qa.running.get().release, prod)
    prod.hosts.add(Host.objects.get(name="local"))
    newer = services.make_release(passed())
    Deployment.objects.filter(release=newer).update(state="succeeded")
    Membership.objects.update_or_create(project=hello, user=bob, defaults={"role": Role.MAINTAINER})
    environments.change(environment=prod, user=admin_user, approvals=1, approvers=["bob"])
    waits = services.promote(release=newer, environment=prod, user=admin_user)
    asked = moving.move(environment=prod, user=admin_user, to="edge")
    waits.refresh_from_db()
    assert (waits.state, asked.state) == ("waiting", "queued")
    approvals.approve(deployment=waits, user=bob)
    assert leases.claim(asked.pk) is None
    asked.refresh_from_db()
    assert (asked.state, asked.reason[:2]) == ("superseded", "v2")
    assert take(waits).release == newer


def test_to_deploy_it_again_is_not_to_move_it(qa: Environment, admin_user: Any) -> None:
    asked = moving.move(environment=qa, user=admin_user, to="edge")
    again = services.promote(release=asked.release, environment=qa, user=admin_user)
    assert (again.pk != asked.pk, again.kind) == (True, "promotion")


def test_a_host_that_is_being_moved_to_is_not_removed_and_one_that_was_left_is(
    qa: Environment, admin_user: Any
) -> None:
    edge = Host.objects.get(name="edge")
    asked = moving.move(environment=qa, user=admin_user, to="edge")
    with pytest.raises(Refused, match="A deployment to edge is under way"):
        fleet.remove(user=admin_user, host=edge)
    claimed = take(asked)
    with leases.Lease(claimed) as lease:
        leaving.put_in_place(claimed, lease)
    left = Host.objects.get(name="local")
    assert leaving.left_behind(left) == [], "nothing serves anywhere else yet"
    with pytest.raises(Refused, match="local is used by hello@qa"):
        fleet.remove(user=admin_user, host=left)
    leases.finish(claimed, "succeeded")
    assert leaving.left_behind(left) == [Running.objects.get()]
    fleet.remove(user=admin_user, host=left)
    assert not Running.objects.exists()
