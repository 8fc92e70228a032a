"""promote --dry-run, approve, reject, rollback to the previous one, and the stopped line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ciserver.cli import promotions
from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def prod(history: Any, alice: Any, bob: Any) -> Any:
    """Needs the approval of alice or bob."""
    from ciserver.projects.models import Membership, Role
    from ciserver.releases import environments

    Membership.objects.create(project=history, user=bob, role=Role.MAINTAINER)
    place = history.environments.get(name="prod")
    return environments.change(
        environment=place, user=alice, approvals=1, approvers=["alice", "bob"]
    )


def test_a_dry_run_tells_and_changes_nothing(logged_in: Gantry, prod: Any) -> None:
    ran = logged_in("promote", "hello", "v1", "prod", "--dry-run")
    assert ran.exit_code == 0, ran.err
    assert "prod runs nothing; v1 would take its place." in ran.out
    assert "waits   It needs 1 more approval." in ran.out
    told = json.loads(logged_in("promote", "hello", "v1", "prod", "--dry-run", "--json").out)
    assert (told["current"], told["releases"]) == (None, ["v1"])
    assert not prod.deployments.exists()


def test_a_promotion_waits_until_somebody_else_approves(
    logged_in: Gantry, prod: Any, bob: Any
) -> None:
    from ciserver.releases import services

    ran = logged_in("promote", "hello", "v1", "prod")
    assert ran.exit_code == 0
    assert "v1 waits for prod. It needs 1 more approval." in ran.out
    ran = logged_in("approve", "hello", "v1", "prod")
    assert ran.exit_code == 3
    assert "Who asks for a promotion cannot approve it." in ran.err
    ran = logged_in("reject", "hello", "v1", "prod", "-m", "later")
    assert "Withdrawn by alice: later." in ran.out
    release = prod.project.releases.get()
    services.promote(release=release, environment=prod, user=bob)
    ran = logged_in("approve", "hello", "v1", "prod")
    assert f"prod runs nothing; v1 would take its place.\n  image   {release.digest}" in ran.out
    assert "Approved: v1 is on its way to prod." in ran.out
    ran = logged_in("approve", "hello", "v1", "prod")
    assert ran.exit_code == 4
    assert "v1 does not wait for prod." in ran.err


def test_an_approval_is_of_what_was_shown_and_refused_if_that_changed(
    logged_in: Gantry, prod: Any, alice: Any, bob: Any, monkeypatch: Any
) -> None:
    from ciserver.releases import environments, services

    release = prod.project.releases.get()
    services.promote(release=release, environment=prod, user=bob)
    looked = logged_in("promote", "hello", "v1", "prod", "--dry-run", "--json")
    seen = json.loads(looked.out)["configuration"]
    environments.change(environment=prod, user=alice, variables={"LEVEL": "info"})
    refused = logged_in("approve", "hello", "v1", "prod", "--seen", seen)
    assert refused.exit_code == 4
    assert "The configuration of prod changed after you looked." in refused.err

    shown = promotions._print_preview

    def shown_and_changed(*told: Any) -> None:
        shown(*told)
        environments.change(environment=prod, user=alice, memory_mib=64)

    with monkeypatch.context() as patched:
        patched.setattr(promotions, "_print_preview", shown_and_changed)
        refused = logged_in("approve", "hello", "v1", "prod")
    assert refused.exit_code == 4
    assert "Approved" in logged_in("approve", "hello", "v1", "prod", "--yes").out


def test_the_way_back_is_one_word(logged_in: Gantry, history: Any) -> None:
    from tests.ciserver.pages import seeding

    assert logged_in("rollback", "hello", "previous", "qa").exit_code == 4
    newer = seeding.make_release(seeding.make_passed(history, 3), 2)
    seeding.deploy(newer, history.environments.get(name="qa"))
    ran = logged_in("rollback", "hello", "previous", "qa", "--no-wait", "--json")
    assert json.loads(ran.out)["release_name"] == "v1"


def test_the_line_is_stopped_and_resumed(logged_in: Gantry, history: Any) -> None:
    assert logged_in("stop-line", "-m", "all").exit_code == 3
    assert logged_in("stop-line", "hello", "-m", "incident").exit_code == 0
    ran = logged_in("promote", "hello", "v1", "prod")
    assert ran.exit_code == 4
    assert "The line is stopped by alice: incident" in ran.err
    assert "runs again" in logged_in("resume-line", "hello").out
    assert logged_in("resume-line", "hello").exit_code == 4


def test_what_is_on_its_way_is_cancelled(logged_in: Gantry, history: Any) -> None:
    from ciserver.releases.models import Deployment

    assert logged_in("cancel", "hello@prod").exit_code == 4
    going = Deployment.objects.create(
        environment=history.environments.get(name="prod"),
        release=history.releases.get(),
        kind="promotion",
        state="running",
    )
    ran = logged_in("cancel", "hello@prod", "-m", "too slow")
    assert (ran.exit_code, "v1 to prod is being cancelled." in ran.out) == (0, True)
    going.refresh_from_db()
    assert (going.cancelled_by, going.reason) == ("alice", "Cancelled by alice: too slow.")
    Deployment.objects.filter(pk=going.pk).update(state="queued")
    assert "Refused by alice." in logged_in("cancel", "hello@prod").out
