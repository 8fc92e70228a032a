"""One worker per deployment, one deployment per environment, and what happens when one dies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ciserver.lib.models import OutboxEntry
from ciserver.releases import leases, services
from ciserver.releases.leases import Cancelled, Lease, LeaseLost
from ciserver.releases.models import Deployment, DeploymentState, DeploymentStep, Environment, Host
from ciserver.releases.steps import Recorder
from tests.together import together

pytestmark = pytest.mark.django_db


@pytest.fixture
def queued(passed: Any) -> Deployment:
    return services.make_release(passed()).deployments.get()


def expire(deployment: Deployment) -> None:
    past = timezone.now() - timedelta(seconds=1)
    Deployment.objects.filter(pk=deployment.pk).update(lease_until=past)


def promised() -> list[int]:
    return list(
        OutboxEntry.objects.filter(topic="deployment.queued").values_list("object_id", flat=True)
    )


def test_a_deployment_is_claimed_once(queued: Deployment) -> None:
    claimed = leases.claim(queued.pk)
    assert claimed is not None
    assert (claimed.state, claimed.fence, claimed.attempt) == ("running", 1, 1)
    assert leases.claim(queued.pk) is None
    assert promised() == []


@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
def test_leases_go_by_the_databases_clock_whatever_the_workers_says(
    queued: Deployment, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    wrong = timezone.now() + timedelta(hours=hours)
    with monkeypatch.context() as patched:
        patched.setattr(timezone, "now", lambda: wrong)
        claimed = leases.claim(queued.pk)
        assert claimed is not None
        assert Lease(claimed).renew()
        assert leases.recover_deployments() == []
    claimed.refresh_from_db()
    assert claimed.lease_until is not None
    left = claimed.lease_until - timezone.now()
    assert timedelta(seconds=10) < left <= timedelta(seconds=21)


def test_one_deployment_at_a_time_and_the_next_one_is_woken(
    queued: Deployment, passed: Any
) -> None:
    running = leases.claim(queued.pk)
    waiting = services.make_release(passed()).deployments.get()
    assert leases.claim(waiting.pk) is None
    waiting.refresh_from_db()
    assert waiting.state == "queued"
    assert promised() == [waiting.pk], "the promise stays while it has to wait"
    assert running is not None
    OutboxEntry.objects.all().delete()
    leases.finish(running, DeploymentState.SUCCEEDED)
    assert promised() == [waiting.pk]
    assert leases.claim(waiting.pk) is not None


def test_other_environments_do_not_wait(queued: Deployment, succeeded: Any, alice: Any) -> None:
    assert leases.claim(queued.pk)
    release = queued.release
    Deployment.objects.create(
        release=release, environment=queued.environment, kind="auto", state="succeeded"
    )
    prod = release.project.environments.get(name="prod")
    other = Deployment.objects.create(release=release, environment=prod, kind="promotion")
    assert leases.claim(other.pk)


def test_an_older_one_that_is_woken_late_gives_way(queued: Deployment, passed: Any) -> None:
    newer = Deployment.objects.create(
        release=services.make_release(passed(ref="refs/heads/other")),
        environment=queued.environment,
        kind="promotion",
    )
    assert leases.claim(queued.pk) is None
    queued.refresh_from_db()
    assert queued.state == "superseded"
    assert leases.claim(newer.pk) is not None


def test_a_dead_workers_deployment_goes_back_to_the_queue(queued: Deployment) -> None:
    claimed = leases.claim(queued.pk)
    assert claimed is not None
    assert leases.recover_deployments() == [], "a live lease is left alone"
    expire(queued)
    assert leases.recover_deployments() == [queued.pk]
    queued.refresh_from_db()
    assert queued.state == "queued"
    assert promised() == [queued.pk]


def test_the_third_death_is_the_last(queued: Deployment) -> None:
    for _ in range(3):
        assert leases.claim(queued.pk) is not None
        expire(queued)
        leases.recover_deployments()
    queued.refresh_from_db()
    assert queued.state == "failed"
    assert "died in each of 3 attempts" in queued.reason
    assert promised() == []


def test_a_worker_that_wakes_up_late_can_change_nothing(queued: Deployment) -> None:
    late = leases.claim(queued.pk)
    assert late is not None
    host = Host.objects.create(name="local")
    lease = Lease(late)
    expire(queued)
    leases.recover_deployments()
    assert leases.claim(queued.pk) is not None
    assert not lease.renew()
    with pytest.raises(LeaseLost):
        with Recorder(late, host, lease).step("switch"):
            pytest.fail("the step began")
    with pytest.raises(LeaseLost):
        leases.finish(late, DeploymentState.SUCCEEDED)
    queued.refresh_from_db()
    assert queued.state == "running"


def test_a_step_that_nobody_ended_is_ended_by_the_next_attempt(queued: Deployment) -> None:
    assert leases.claim(queued.pk) is not None
    host = Host.objects.create(name="local")
    DeploymentStep.objects.create(deployment=queued, host=host, position=1, name="pull")
    expire(queued)
    leases.recover_deployments()
    assert leases.claim(queued.pk) is not None
    step = DeploymentStep.objects.get()
    assert (step.state, step.detail) == ("failed", "The worker died here.")


def test_a_step_says_how_it_failed(queued: Deployment) -> None:
    claimed = leases.claim(queued.pk)
    assert claimed is not None
    host = Host.objects.create(name="local")
    with pytest.raises(RuntimeError):
        with Recorder(claimed, host, Lease(claimed)).step("pull"):
            raise RuntimeError("no space left")
    step = DeploymentStep.objects.get()
    assert (step.state, step.detail, step.finished_at is None) == ("failed", "no space left", False)


def test_one_that_is_followed_is_ended_with_the_next_or_once_none_may_come(
    queued: Deployment,
) -> None:
    claimed = leases.claim(queued.pk)
    assert claimed is not None
    record = Recorder(claimed, Host.objects.create(name="local"), Lease(claimed))

    def told() -> list[tuple[str, str, str]]:
        return list(claimed.steps.values_list("name", "state", "detail"))

    with record.step("pull", followed=True) as note:
        note.text = "1 byte"
    began = timezone.now()
    with record.step("start", followed=True):
        assert told() == [("pull", "succeeded", "1 byte"), ("start", "running", "")]
        assert (claimed.steps.get(name="pull").finished_at or began) < began, "when it did end"
    Deployment.objects.filter(pk=claimed.pk).update(cancelled_by="alice", reason="Cancelled.")
    with pytest.raises(Cancelled), record.step("check"):
        pytest.fail("the step began")
    assert told() == [("pull", "succeeded", "1 byte"), ("start", "succeeded", "")]


@pytest.mark.django_db(transaction=True)
def test_no_deployment_begins_while_its_environment_is_tended(queued: Deployment) -> None:
    with leases.tend(queued.environment) as lease:
        assert lease is not None
        with leases.tend(queued.environment) as second:
            assert second is None, "one worker tends it"
        assert leases.claim(queued.pk) is None
        assert promised() == [queued.pk], "the promise stays"
        OutboxEntry.objects.all().delete()
    assert promised() == [queued.pk], "and is woken at the end"
    assert leases.claim(queued.pk) is not None
    with leases.tend(queued.environment) as third:
        assert third is None, "who deploys is left alone"


@pytest.mark.django_db(transaction=True)
def test_a_deployment_takes_the_environment_from_a_worker_that_died_tending_it(
    queued: Deployment,
) -> None:
    with leases.tend(queued.environment) as late:
        assert late is not None
        past = timezone.now() - timedelta(seconds=1)
        Environment.objects.filter(pk=queued.environment_id).update(lease_until=past)
        assert leases.claim(queued.pk) is not None
        with pytest.raises(LeaseLost):
            late.check()
        assert not late.renew()
    queued.environment.refresh_from_db()
    assert queued.environment.lease_until is None


@pytest.mark.django_db(transaction=True)
def test_a_heartbeat_keeps_the_lease(queued: Deployment, monkeypatch: Any) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT", timedelta(seconds=0.1))
    claimed = leases.claim(queued.pk)
    assert claimed is not None
    expire(queued)
    with Lease(claimed):
        deadline = timezone.now() + timedelta(seconds=5)
        while Deployment.objects.get(pk=queued.pk).lease_until < timezone.now():  # type: ignore[operator]
            assert timezone.now() < deadline
    assert leases.recover_deployments() == []


@pytest.mark.django_db(transaction=True)
def test_thirty_promotions_at_once_leave_one_line_of_deployments(
    hello: Any, passed: Any, succeeded: Any, alice: Any
) -> None:
    qa, prod = hello.environments.all()
    releases = [services.make_release(passed()) for _ in range(5)]
    for release in releases:
        succeeded(release, qa)

    def promote(number: int) -> None:
        services.promote(release=releases[number % 5], environment=prod, user=alice)

    together(promote, range(30))
    newest = prod.deployments.first()
    states = list(prod.deployments.values_list("state", flat=True))
    assert states == ["queued"] + ["superseded"] * (len(states) - 1)
    claimed = [leases.claim(row.pk) for row in prod.deployments.all()]
    assert [row.pk for row in claimed if row] == [newest.pk]
