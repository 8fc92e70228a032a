"""Who may put which release where, in which order, and what is written down about it."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import pytest
from django.db import transaction

from ciserver.accounts.models import AuditEntry
from ciserver.lib.models import OutboxEntry
from ciserver.lib.problems import Refused
from ciserver.pipelines.models import Job, JobKind, Pipeline, State, Step, TestCase
from ciserver.projects.models import Membership, Role
from ciserver.projects.services import create
from ciserver.releases import services
from ciserver.releases.models import Deployment, Host, Release, Sealed

pytestmark = pytest.mark.django_db


def place(project: Any, name: str) -> Any:
    return project.environments.get(name=name)


def test_a_pipeline_has_one_release_however_often_it_is_asked_for(passed: Any) -> None:
    pipeline = passed()
    assert services.make_release(pipeline) == services.make_release(pipeline)
    assert Release.objects.count() == 1
    assert Deployment.objects.count() == 1


def test_releases_are_numbered_in_the_order_in_which_they_are_made(passed: Any) -> None:
    assert [services.make_release(passed()).name for _ in range(3)] == ["v1", "v2", "v3"]


def test_a_pipeline_that_failed_makes_no_release(passed: Any) -> None:
    pipeline = passed()
    pipeline.state = State.FAILED
    with pytest.raises(ValueError, match="failed"):
        services.make_release(pipeline)


def test_a_release_keeps_its_evidence(passed: Any) -> None:
    pipeline = passed()
    job = Job.objects.create(
        pipeline=pipeline, position=1, name="unit", kind=JobKind.TEST, state=State.PASSED
    )
    for name in ("a", "b"):
        TestCase.objects.create(job=job, name=name, outcome="passed")
    TestCase.objects.create(job=job, name="c", outcome="skipped")
    receipt = {"wall": 1.5, "user": 0.25, "system": 0.5, "peak_memory": 4096}
    Step.objects.create(job=job, position=1, text="RUN a", receipt=receipt)
    Step.objects.create(job=job, position=2, text="RUN b", receipt=receipt, cached=True)
    evidence = services.make_release(pipeline).evidence
    assert evidence["commit"] == pipeline.commit
    assert evidence["tests"] == {
        "jobs": [{"name": "unit", "state": "passed"}],
        "cases": 3,
        "passed": 2,
        "failed": 0,
        "error": 0,
        "skipped": 1,
    }
    assert evidence["receipts"] == {
        "steps": 2,
        "cached": 1,
        "wall_seconds": 3.0,
        "cpu_seconds": 1.5,
        "peak_memory": 4096,
    }


def test_automatic_environments_get_a_new_release_and_others_do_not(passed: Any) -> None:
    services.make_release(passed())
    assert [(d.environment.name, d.kind) for d in Deployment.objects.all()] == [("qa", "auto")]
    assert OutboxEntry.objects.filter(topic="deployment.queued").count() == 1


def test_another_branch_is_released_but_not_deployed_by_itself(passed: Any) -> None:
    services.make_release(passed(ref="refs/heads/feature"))
    assert Release.objects.count() == 1
    assert not Deployment.objects.exists()


def test_an_older_push_that_ends_later_does_not_take_the_environment_back(passed: Any) -> None:
    old, new = passed(), passed()
    services.make_release(new)
    services.make_release(old)
    assert [d.release.commit for d in Deployment.objects.all()] == [new.commit]


def test_a_newer_release_supersedes_what_still_waits(passed: Any) -> None:
    services.make_release(passed())
    services.make_release(passed())
    newer, older = Deployment.objects.all()
    assert (newer.state, older.state) == ("queued", "superseded")
    assert older.reason == "v2 was asked for qa before this one began."
    assert OutboxEntry.objects.filter(topic="deployment.queued").count() == 1


def test_a_release_goes_straight_to_the_first_environment(passed: Any, alice: Any) -> None:
    release = services.make_release(passed(ref="refs/heads/feature"))
    qa = place(release.project, "qa")
    deployment = services.promote(release=release, environment=qa, user=alice)
    assert (deployment.kind, deployment.requested_by) == ("promotion", "alice")


def test_promotion_out_of_order_is_refused_with_the_reason(passed: Any, alice: Any) -> None:
    release = services.make_release(passed())
    prod = place(release.project, "prod")
    with pytest.raises(Refused, match="v1 is still being deployed to qa") as refusal:
        services.promote(release=release, environment=prod, user=alice)
    assert refusal.value.code == "release.order"
    assert not prod.deployments.exists()


def test_promotion_follows_a_success_in_the_environment_before(
    passed: Any, succeeded: Any, alice: Any
) -> None:
    release = services.make_release(passed())
    succeeded(release, place(release.project, "qa"))
    prod = place(release.project, "prod")
    deployment = services.promote(release=release, environment=prod, user=alice)
    entry = AuditEntry.objects.first()
    assert entry is not None
    assert (entry.actor, entry.action, entry.target) == (
        "alice",
        "deployment.promotion",
        "hello@prod",
    )
    assert entry.detail == {"release": "v1", "digest": release.digest}
    assert AuditEntry.broken_at() is None
    again = services.promote(release=release, environment=prod, user=alice)
    assert again == deployment, "asked twice is asked once"


@pytest.mark.parametrize("who", ["bob", "charlie"])
def test_only_a_maintainer_may_promote(
    passed: Any, succeeded: Any, request: pytest.FixtureRequest, who: str
) -> None:
    release = services.make_release(passed())
    succeeded(release, place(release.project, "qa"))
    user = request.getfixturevalue(who)
    with pytest.raises(Refused, match="maintainer") as refusal:
        services.promote(release=release, environment=place(release.project, "prod"), user=user)
    assert refusal.value.status == 403


def test_a_maintainer_who_owns_nothing_may_promote(passed: Any, succeeded: Any, bob: Any) -> None:
    release = services.make_release(passed())
    Membership.objects.filter(user=bob).update(role=Role.MAINTAINER)
    qa = succeeded(release, place(release.project, "qa")).environment
    assert services.promote(release=release, environment=place(qa.project, "prod"), user=bob)


def test_there_is_a_way_back_only_to_what_ran_well(passed: Any, succeeded: Any, alice: Any) -> None:
    first, second = services.make_release(passed()), services.make_release(passed())
    qa = place(first.project, "qa")
    succeeded(first, qa)
    Deployment.objects.filter(release=second).update(state="failed")
    back = services.roll_back(environment=qa, release=first, user=alice)
    assert (back.kind, back.release) == ("rollback", first)
    with pytest.raises(Refused, match="v2 never ran healthy in qa"):
        services.roll_back(environment=qa, release=second, user=alice)


def test_a_release_cannot_be_put_into_another_projects_environment(passed: Any, alice: Any) -> None:
    release = services.make_release(passed())
    other = create(slug="other", owner=alice)
    foreign = services.create_environment(project=other, name="qa")
    with pytest.raises(Refused, match="different projects"):
        services.promote(release=release, environment=foreign, user=alice)


def test_environments_get_ports_that_nobody_uses(hello: Any, settings: Any) -> None:
    used = {environment.port for environment in hello.environments.all()}
    assert len(used) == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free = taken.getsockname()[1]
        # The first of the range is ours, whatever other processes of the tests have taken.
        settings.GANTRY = replace(settings.GANTRY, deploy_ports=range(free, 65535))
        environment = services.create_environment(project=hello, name="canary")
    assert environment.port not in {free, *used}
    assert environment.position == 3


def test_a_name_that_no_url_could_hold_is_refused(hello: Any) -> None:
    with pytest.raises(Refused, match="cannot be an environment's name"):
        services.create_environment(project=hello, name="Prod/1")
    with pytest.raises(Refused, match="already"):
        services.create_environment(project=hello, name="qa")


def test_variables_of_several_lines_are_refused(hello: Any) -> None:
    with pytest.raises(Refused, match="KEY has a line break") as refusal:
        services.create_environment(project=hello, name="canary", variables={"KEY": "a\nb"})
    assert (refusal.value.code, refusal.value.status) == ("environment.variable", 400)
    assert not hello.environments.filter(name="canary").exists()


def test_a_host_is_attached_once(hello: Any, alice: Any) -> None:
    for name in ("qa", "prod", "qa"):
        host = services.attach_host(environment=place(hello, name), user=alice)
    assert host.environments.count() == 2
    assert host.kind == "local"


def test_this_machine_is_for_whoever_maintains_a_project(hello: Any, charlie: Any) -> None:
    other = create(slug="other", owner=charlie)
    environment = services.create_environment(project=other, name="qa")
    assert services.attach_host(environment=environment, user=charlie).name == "local"


@pytest.mark.parametrize("who", ["bob", "charlie"])
def test_only_a_maintainer_attaches_a_host(
    hello: Any, request: pytest.FixtureRequest, who: str
) -> None:
    user = request.getfixturevalue(who)
    with pytest.raises(Refused, match="maintainer"):
        services.attach_host(environment=place(hello, "qa"), user=user)
    assert not Host.objects.exists()


@pytest.fixture
def edge(hello: Any) -> Host:
    """A host of hello's prod."""
    host = Host.objects.create(name="edge")
    place(hello, "prod").hosts.add(host)
    return host


def test_who_maintains_a_project_on_a_host_may_use_it_for_another(edge: Host, alice: Any) -> None:
    other = services.create_environment(project=create(slug="other", owner=alice), name="qa")
    assert services.attach_host(environment=other, user=alice, name="edge") == edge


@pytest.mark.parametrize("who", ["bob", "charlie"])
def test_who_only_sees_a_project_may_not_use_its_hosts(
    edge: Host, request: pytest.FixtureRequest, who: str
) -> None:
    user = request.getfixturevalue(who)
    own = services.create_environment(project=create(slug="own", owner=user), name="qa")
    with pytest.raises(Refused, match="no host 'edge' that you may use") as refusal:
        services.attach_host(environment=own, user=user, name="edge")
    assert refusal.value.status == 404
    assert not own.hosts.exists()


def test_nobody_makes_a_host_by_naming_it(hello: Any, alice: Any, admin_user: Any) -> None:
    for user in (alice, admin_user):
        with pytest.raises(Refused, match="no host 'nowhere'"):
            services.usable_hosts(user=user, names=["nowhere"])
    assert not Host.objects.exists()


def test_an_administrator_may_use_every_host(edge: Host, admin_user: Any) -> None:
    assert services.usable_hosts(user=admin_user, names=["edge"]) == [edge]


def test_a_tag_on_a_commit_that_was_released_is_put_on_that_release(passed: Any) -> None:
    pipeline = passed()
    release = services.make_release(pipeline)
    tagged = passed(pipeline.digest, ref="refs/tags/v1.0")
    Pipeline.objects.filter(pk=tagged.pk).update(event="tag", commit=pipeline.commit)
    tagged.refresh_from_db()

    for _ in range(2):
        assert services.make_release(tagged) == release

    release.refresh_from_db()
    assert release.tags == [{"name": "v1.0", "pipeline": tagged.number}]
    assert (Release.objects.count(), Deployment.objects.count()) == (1, 1)


def test_a_tag_whose_image_is_another_is_a_release_of_its_own(passed: Any) -> None:
    first = passed()
    services.make_release(first)
    tagged = passed(ref="refs/tags/v1.0")
    Pipeline.objects.filter(pk=tagged.pk).update(event="tag", commit=first.commit)
    tagged.refresh_from_db()
    assert services.make_release(tagged).name == "v2"


OTHER: dict[str, Any] = {
    "digest": "sha256:ff",
    "commit": "f" * 40,
    "number": 7,
    "repository": "elsewhere/hello",
    "images": {"web": {}},
    "evidence": {"tests": {"passed": 1}},
    "configuration": "another",
    "image": {"port": 1},
}


@pytest.mark.parametrize("field", OTHER)
def test_what_a_release_is_never_changes(passed: Any, field: str) -> None:
    made = services.make_release(passed())
    made.image = {"port": 8080}
    made.save(update_fields=["image"])
    there = Release.objects.values().get()

    setattr(made, field, OTHER[field])
    for only in (None, [field], [field, "tags"]):
        with pytest.raises(Sealed, match=f"its {field} cannot be changed"):
            made.save(update_fields=only)
    for rows in (Release.objects.all(), made.project.releases.all()):
        with pytest.raises(Sealed, match=field):
            rows.update(**{field: OTHER[field]})
        with pytest.raises(Sealed, match=field), transaction.atomic():
            rows.bulk_update([made], [field])
    assert Release.objects.values().get() == there


def test_what_is_learned_of_a_release_later_is_written_beside_it(passed: Any) -> None:
    made = services.make_release(passed())
    made.tags = [{"name": "v1", "pipeline": 2}]
    made.save()
    made.image = {"port": 8080}
    made.save()
    Release.objects.update(image_deleted=True)
    again = Release.objects.get()
    assert (again.tags, again.image, again.image_deleted) == (made.tags, {"port": 8080}, True)
