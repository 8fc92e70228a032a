"""A deployment that goes on is cancelled: by whom, what that ends, and what it comes too late for.

What it withdraws on a host is in test_deploy.py.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib.models import OutboxEntry
from ciserver.lib.problems import Refused
from ciserver.releases import approvals, leases, services
from ciserver.releases.leases import Cancelled, Lease
from ciserver.releases.models import Deployment, DeploymentState, Host
from ciserver.releases.steps import Recorder
from tests.conftest import api_as

pytestmark = pytest.mark.django_db


@pytest.fixture
def going(passed: Any) -> Deployment:
    """Of v1 to qa, with a worker at it."""
    queued = services.make_release(passed()).deployments.get()
    claimed = leases.claim(queued.pk)
    assert claimed is not None
    return claimed


def step(deployment: Deployment, name: str) -> None:
    host = Host.objects.get_or_create(name="local")[0]
    with Recorder(deployment, host, Lease(deployment)).step(name):
        pass


def test_its_worker_begins_no_other_step_but_may_put_things_right(
    going: Deployment, alice: Any, bob: Any, charlie: Any
) -> None:
    url = f"/api/v1/deployments/{going.pk}/cancel/"
    assert api_as(charlie).post(url).status_code == 404
    assert api_as(bob).post(url).status_code == 403
    step(going, "pull")
    answer = api_as(alice).post(url, {"reason": "too slow"}, format="json").json()
    assert (answer["state"], answer["cancelled_by"]) == ("running", "alice")
    for name in ("connect", "pull", "start", "check", "switch"):
        with pytest.raises(Cancelled, match="Cancelled by alice: too slow"):
            step(going, name)
    Lease(going).check()
    step(going, "retire")
    entry = AuditEntry.objects.get(action="deployment.cancel")
    assert (entry.actor, entry.detail["reason"]) == ("alice", "too slow")
    api_as(alice).post(url)
    assert AuditEntry.objects.filter(action="deployment.cancel").count() == 1


def test_what_had_served_already_stays_a_success(going: Deployment, alice: Any) -> None:
    approvals.cancel(deployment=going, user=alice)
    leases.finish(going, DeploymentState.SUCCEEDED)
    assert (going.state, going.reason) == (
        "succeeded",
        "alice cancelled it when it served already.",
    )
    with pytest.raises(Refused, match="is succeeded"):
        approvals.cancel(deployment=going, user=alice)


def test_one_that_has_not_begun_ends_at_once(passed: Any, alice: Any) -> None:
    queued = services.make_release(passed()).deployments.get()
    approvals.cancel(deployment=queued, user=alice, reason="not now")
    assert (queued.state, queued.reason) == ("cancelled", "Refused by alice: not now.")


def test_refusing_does_not_end_what_goes_on(going: Deployment, alice: Any) -> None:
    with pytest.raises(Refused, match="is running") as refused:
        approvals.reject(deployment=going, user=alice)
    assert refused.value.hint == "To end it all the same, cancel it."
    going.refresh_from_db()
    assert going.state == "running"


def test_if_its_worker_dies_then_nobody_takes_it_up(
    going: Deployment, passed: Any, alice: Any
) -> None:
    approvals.cancel(deployment=going, user=alice)
    following = services.make_release(passed()).deployments.get()
    OutboxEntry.objects.all().delete()
    past = timezone.now() - timedelta(seconds=1)
    Deployment.objects.filter(pk=going.pk).update(lease_until=past)
    assert leases.recover_deployments() == [going.pk]
    going.refresh_from_db()
    assert (going.state, going.reason) == (
        "cancelled",
        "Cancelled by alice; its worker died meanwhile.",
    )
    assert OutboxEntry.objects.filter(topic=leases.TOPIC, object_id=following.pk).exists()


def test_a_roll_back_tells_what_it_waits_for_and_how_to_end_that(
    passed: Any, succeeded: Any, hello: Any, alice: Any
) -> None:
    qa = hello.environments.get(name="qa")
    old = services.make_release(passed())
    succeeded(old, qa)
    bad = leases.claim(services.make_release(passed()).deployments.get().pk)
    assert bad is not None
    back = services.roll_back(environment=qa, release=old, user=alice)
    assert (back.state, back.reason) == (
        "queued",
        "v2 is on its way to qa and ends first. To have this one begin now, cancel that one:"
        " gantry cancel hello@qa",
    )
    approvals.cancel(deployment=bad, user=alice)
    leases.finish(bad, DeploymentState.CANCELLED, reason="Cancelled by alice.")
    claimed = leases.claim(back.pk)
    assert claimed is not None and claimed.reason == ""


def test_what_is_being_cancelled_can_be_asked_for_again(
    going: Deployment, hello: Any, alice: Any
) -> None:
    approvals.cancel(deployment=going, user=alice)
    qa = hello.environments.get(name="qa")
    again = services.promote(release=going.release, environment=qa, user=alice)
    assert (again.state, again.reason, again == going) == ("queued", "", False)
