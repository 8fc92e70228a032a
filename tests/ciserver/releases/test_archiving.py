"""What becomes of a project that is archived or deleted, and of an environment that is removed."""

from __future__ import annotations

import subprocess
import threading
from base64 import b64encode
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection, transaction
from django.utils import timezone

from ciserver.accounts.models import AuditEntry
from ciserver.lib.models import OutboxEntry
from ciserver.lib.problems import Refused
from ciserver.pipelines import turns
from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import JobKind, Pipeline, State
from ciserver.projects.models import Project
from ciserver.releases import (
    approvals,
    archiving,
    environments,
    fleet,
    leases,
    policy,
    queue,
    removal,
    services,
)
from ciserver.releases.models import Deployment, Environment, Host, Release, Running
from ciserver.repositories.git import create_hosted
from ciserver.repositories.http.access import RECEIVE, Denied, admit
from ciserver.webhooks.models import Delivery, Verdict
from ciserver.webhooks.services import redeliver
from ciserver.webhooks.trial import signed
from tests.ciserver.pages.seeding import make_delivery, make_job, make_pipeline
from tests.ciserver.releases.conftest import Registry
from tests.ciserver.releases.test_garbage import can_be_pulled, ours, release  # noqa: F401
from tests.conftest import api_as

pytestmark = pytest.mark.django_db


@pytest.fixture
def unreachable(hello: Any, passed: Any, serves: Any, admin_user: Any) -> Environment:
    """What serves qa is on a host that does not answer."""
    place: Environment = hello.environments.get(name="qa")
    serves(services.make_release(passed()), place)
    host = fleet.add(user=admin_user, name="edge", address="root@127.0.0.1:1")
    place.hosts.set([host])
    place.running.update(host=host)
    return place


def exists(registry: Registry, repository: str, digest: str) -> bool:
    url = f"http://{registry.address}/v2/{repository}/manifests/{digest}"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    return httpx.head(url, headers=accept).status_code == httpx.codes.OK


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("id").values_list("action", flat=True))


def test_an_archived_project_is_only_read_until_it_is_restored(
    hello: Any, passed: Any, alice: Any, bob: Any
) -> None:
    queued = make_pipeline(hello, 7, state=State.QUEUED)
    made = services.make_release(passed())
    (deployment,) = made.deployments.all()
    archiving.archive(project=hello, user=alice)
    queued.refresh_from_db()
    deployment.refresh_from_db()
    assert (queued.state, deployment.state) == (State.CANCELLED, "cancelled")
    assert deployment.reason == "hello is archived by alice."
    prod = hello.environments.get(name="prod")
    with pytest.raises(Refused, match="archived"):
        services.promote(release=made, environment=prod, user=alice)
    with pytest.raises(Refused, match="archived"):
        environments.change(environment=prod, user=alice, soak_minutes=1)
    make_pipeline(hello, 8, state=State.QUEUED)  # that came at the same moment
    assert turns.next_ones() == []
    with pytest.raises(Refused, match="archived already"):
        archiving.archive(project=hello, user=alice)
    archiving.restore(project=hello, user=alice)
    assert len(turns.next_ones()) == 1
    environments.change(environment=prod, user=alice, soak_minutes=1)
    assert {"project.archive", "project.restore"} <= set(actions())


def test_pushes_are_refused_and_deliveries_build_nothing(
    hello: Any, alice: Any, client: Any
) -> None:
    make_delivery(hello, None, 1, verdict=Verdict.STALE)
    archiving.archive(project=hello, user=alice)
    told = "Basic " + b64encode(b"alice:alice-password-1").decode()
    assert admit("hello", "git-upload-pack", told).user == "alice"
    with pytest.raises(Denied, match="gantry restore hello"):
        admit("hello", RECEIVE, told)
    hello.refresh_from_db()
    secret = hello.renew_hook_secret()
    body = b"{}"
    headers = signed("generic", secret)
    answer = client.post(
        "/hooks/generic/hello/", body, content_type="application/json", headers=headers
    )
    assert answer.status_code == 200, answer.content
    newest = Delivery.objects.order_by("pk").last()
    assert newest is not None
    assert (newest.verdict, newest.detail) == (
        Verdict.IGNORED, "hello is archived: nothing of it is built.",
    )  # fmt: skip
    with pytest.raises(Refused, match="archived"):
        redeliver(delivery=newest, user=alice)


def test_only_owners_and_only_with_the_name(hello: Any, alice: Any, bob: Any) -> None:
    qa = hello.environments.get(name="qa")
    for verb in (
        lambda: archiving.archive(project=hello, user=bob),
        lambda: archiving.restore(project=hello, user=bob),
        lambda: archiving.delete(project=hello, user=bob, confirm="hello"),
        lambda: archiving.remove(environment=qa, user=bob, confirm="hello@qa"),
    ):
        with pytest.raises(Refused) as refused:
            verb()
        assert refused.value.status == 403
    api = api_as(alice)
    for path in ("projects/hello/", f"environments/{qa.pk}/"):
        answer = api.delete(f"/api/v1/{path}?confirm=another")
        assert (answer.status_code, answer.json()["code"]) == (400, "confirm")
    assert not Project.objects.exclude(archived_at=None).exists()


def test_what_goes_on_is_waited_for(hello: Any, passed: Any, alice: Any) -> None:
    (deployment,) = services.make_release(passed()).deployments.all()
    assert leases.claim(deployment.pk)
    for verb in (
        lambda: archiving.archive(project=hello, user=alice),
        lambda: archiving.remove(
            environment=deployment.environment, user=alice, confirm="hello@qa"
        ),
    ):
        with pytest.raises(Refused, match="v1 is on its way to hello@qa"):
            verb()


@pytest.mark.django_db(transaction=True)
def test_what_begins_this_very_moment_is_waited_for(hello: Any, passed: Any, alice: Any) -> None:
    (deployment,) = services.make_release(passed()).deployments.all()
    begun, committed = threading.Event(), threading.Event()

    def begin() -> None:
        with transaction.atomic():
            assert leases.claim(deployment.pk)
            begun.set()
            committed.wait(10)
        connection.close()

    worker = threading.Thread(target=begin)
    worker.start()
    assert begun.wait(10)
    threading.Timer(0.5, committed.set).start()
    with pytest.raises(Refused, match="v1 is on its way to hello@qa"):
        archiving.archive(project=hello, user=alice)
    worker.join()


def test_a_deletion_can_be_taken_back_for_a_week(hello: Any, alice: Any, client: Any) -> None:
    api = api_as(alice)
    told = api.delete("/api/v1/projects/hello/?confirm=hello")
    assert told.status_code == 202
    hello.refresh_from_db()
    assert timedelta(days=6) < hello.delete_at - timezone.now() < timedelta(days=7)
    assert not removal.anything_due()
    assert removal.delete_project(hello.pk), "it is not its time"
    assert api.get("/api/v1/projects/?archived=true").json()["results"][0]["slug"] == "hello"
    assert api.get("/api/v1/projects/?archived=false").json()["results"] == []
    client.force_login(alice)
    assert "Restore it" in client.get("/projects/hello/archive/").content.decode()
    assert 'href="/projects/hello/"' not in client.get("/").content.decode()
    assert 'href="/projects/hello/"' in client.get("/?show=archived").content.decode()
    assert api.post("/api/v1/projects/hello/restore/").json()["delete_at"] is None
    Project.objects.update(archived_at=timezone.now(), delete_at=timezone.now())
    with pytest.raises(Refused, match="is being deleted"):
        archiving.restore(project=hello, user=alice)


def test_a_deleted_project_leaves_nothing_but_the_audit_log(
    ours: Any,  # noqa: F811 - the fixture
    hello: Any,
    passed: Any,
    serves: Any,
    alice: Any,
    settings: Any,
) -> None:
    made = [release(ours, passed, page) for page in ("one", "two")]
    ours.tag("hello", made[0].digest, "main")
    cached = ours.push("hello/cache", page="what a step made")
    ours.tag("hello/cache", cached, "cache-protected")
    assert exists(ours, "hello/cache", cached)
    serves(made[0], hello.environments.get(name="prod"))
    Running.objects.all().delete()  # what is on hosts: test_deploy.py
    job = make_job(made[0].pipeline, 1, "build", JobKind.BUILD)
    with LogWriter(job.log_path) as log:
        log.say("Hello")
    settings.GANTRY.repositories.mkdir()
    place = create_hosted(hello)
    other = Project.objects.create(slug="hello-too")
    kept = make_pipeline(other, 1)
    path: Path = job.log_path
    archiving.delete(project=hello, user=alice, confirm="hello", now=True)
    assert OutboxEntry.objects.filter(topic=archiving.PROJECT, object_id=hello.pk).exists()
    assert removal.delete_project(hello.pk)
    assert [row.slug for row in Project.objects.all()] == ["hello-too"]
    assert list(Pipeline.objects.all()) == [kept]
    assert not Release.objects.exists() and not Deployment.objects.exists()
    assert not path.exists() and not place.exists()
    assert not any(can_be_pulled(ours, row) for row in made)
    assert not exists(ours, "hello/cache", cached), "the next project of that name must not read it"
    entry = AuditEntry.objects.get(action="project.deleted")
    assert (entry.target, entry.detail["images"]) == ("hello", 2)
    assert not OutboxEntry.objects.filter(topic=archiving.PROJECT).exists()
    assert removal.delete_project(hello.pk), "called again, there is nothing to do"


def test_a_registry_that_is_away_holds_up_the_rows(
    hello: Any, passed: Any, alice: Any, settings: Any
) -> None:
    settings.GANTRY = replace(settings.GANTRY, registry="127.0.0.1:1")
    services.make_release(passed(repository=f"{settings.GANTRY.registry}/hello"))
    archiving.delete(project=hello, user=alice, confirm="hello", now=True)
    assert not removal.delete_project(hello.pk)
    assert Release.objects.count() == 1, "it is tried again"
    assert removal.anything_due()


def test_a_repository_that_cannot_be_removed_yet_holds_up_the_row(
    ours: Any,  # noqa: F811 - the fixture
    hello: Any,
    alice: Any,
    settings: Any,
) -> None:
    settings.GANTRY.repositories.mkdir()
    place = create_hosted(hello)
    archiving.delete(project=hello, user=alice, confirm="hello", now=True)
    busy = place / "objects/busy"
    busy.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", busy], check=True)
    try:
        assert not removal.delete_project(hello.pk)
    finally:
        subprocess.run(["umount", busy], check=True)
    assert removal.anything_due(), "else nobody would find the rest of it again"
    assert removal.delete_project(hello.pk)
    assert not place.exists()


def test_a_pipeline_that_still_runs_ends_first(
    ours: Any,  # noqa: F811 - the fixture
    hello: Any,
    alice: Any,
) -> None:
    pipeline = make_pipeline(hello, 7, state=State.RUNNING)
    archiving.delete(project=hello, user=alice, confirm="hello", now=True)
    pipeline.refresh_from_db()
    assert pipeline.cancel_requested_by == "alice"
    assert not removal.delete_project(hello.pk)
    Pipeline.objects.update(state=State.CANCELLED)
    removal.remove_all()
    assert not Project.objects.filter(slug="hello").exists()


def test_an_environment_that_nothing_serves_goes_at_once_and_the_next_follows(
    hello: Any, passed: Any, succeeded: Any, alice: Any
) -> None:
    qa, prod = hello.environments.get(name="qa"), hello.environments.get(name="prod")
    made = services.make_release(passed())
    assert policy.refusal(made, prod), "it has to run in qa first"
    archiving.remove(environment=qa, user=alice, confirm="hello@qa")
    with pytest.raises(Refused, match="being removed"):
        services.promote(release=made, environment=qa, user=alice)
    with pytest.raises(Refused, match="being removed already"):
        archiving.remove(environment=qa, user=alice, confirm="hello@qa")
    assert not policy.refusal(made, prod)
    removal.remove_all()
    assert [row.name for row in hello.environments.all()] == ["prod"]
    assert actions()[-1] == "environment.removed"
    later = services.make_release(passed())
    assert queue.goes_forward(later, prod)
    assert not later.deployments.exists(), "prod is the first now, and not automatic"


def test_a_host_that_does_not_answer_is_said_and_may_be_removed(
    unreachable: Environment, alice: Any, admin_user: Any, client: Any
) -> None:
    archiving.remove(environment=unreachable, user=alice, confirm="hello@qa")
    assert not removal.remove_environment(unreachable.pk)
    client.force_login(alice)
    page = client.get(unreachable.get_absolute_url()).content.decode()
    assert "edge could not be left" in page and "remove the host" in page
    told = api_as(alice).get(f"/api/v1/environments/{unreachable.pk}/").json()
    assert told["removal_problem"].startswith("edge could not be left")
    fleet.remove(user=admin_user, host=Host.objects.get(name="edge"))
    assert removal.remove_environment(unreachable.pk)
    assert not Environment.objects.filter(pk=unreachable.pk).exists()


def test_nothing_waits_in_what_goes(hello: Any, passed: Any, alice: Any, bob: Any) -> None:
    prod = hello.environments.get(name="prod")
    environments.change(environment=prod, user=alice, approvals=1, approvers=["bob"])
    asked = queue.ask(services.make_release(passed()), prod, "promotion", "alice")
    assert asked.waiting
    archiving.remove(environment=prod, user=alice, confirm="hello@prod")
    asked.refresh_from_db()
    assert (asked.state, asked.reason) == ("cancelled", "hello@prod is removed by alice.")
    with pytest.raises(Refused):
        approvals.approve(deployment=asked, user=bob)


def test_the_pages_ask_for_the_name(hello: Any, alice: Any, bob: Any, client: Any) -> None:
    client.force_login(alice)
    url = "/projects/hello/environments/qa/remove/"
    assert "Nothing serves it." in client.get(url).content.decode()
    wrong = client.post(url, {"confirm": "qa"})
    assert wrong.status_code == 400
    assert "this needs the name of what goes: hello@qa" in wrong.content.decode()
    assert client.post(url, {"confirm": "hello@qa"}).status_code == 302
    assert client.post("/projects/hello/archive/", {"do": "delete"}).status_code == 400
    right = client.post("/projects/hello/archive/", {"do": "delete", "confirm": "hello"})
    assert right.status_code == 302
    page = client.get("/projects/hello/").content.decode()
    assert "had it deleted" in page
    assert "git push" not in page.partition("Pipelines</h2>")[2].partition("</section>")[0]
    assert "Watch the next push" not in page
    ending = client.get("/projects/hello/archive/").content.decode()
    assert "Restore it" in ending
    assert "Delete in 7 days" not in ending and "For 7 days" not in ending
    client.force_login(bob)
    assert client.get("/projects/hello/archive/").status_code == 403


def test_the_page_follows_a_deletion_without_a_reload(
    hello: Any, alice: Any, unreachable: Environment, client: Any
) -> None:
    archiving.delete(project=hello, user=alice, confirm="hello", now=True)
    client.force_login(alice)
    url = "/projects/hello/archive/"
    assert f'id="live" data-live="{url}"' in client.get(url).content.decode()
    page = client.get("/projects/hello/").content.decode()
    assert "hello is being deleted." in page
    assert "Restore it" not in page
    part = client.get(url, headers={"X-Live": "1"})
    assert "qa: v1 on edge still serves" in part.content.decode()
    same = {"X-Live": "1", "If-None-Match": part.headers["ETag"]}
    assert client.get(url, headers=same).status_code == 304
    Environment.objects.filter(pk=unreachable.pk).update(removal_problem="edge is silent.")
    moved = client.get(url, headers=same)
    assert (moved.status_code, "qa: edge is silent." in moved.content.decode()) == (200, True)


def test_an_archived_project_offers_no_promotion(
    hello: Any, passed: Any, alice: Any, serves: Any, client: Any
) -> None:
    made = services.make_release(passed())
    serves(made, hello.environments.get(name="qa"))
    Deployment.objects.update(state="succeeded")
    client.force_login(alice)
    offer = f"/projects/hello/releases/{made.number}/promote/prod/"
    places = ["", "environments/prod/", f"releases/{made.number}/"]
    pages = [*(f"/projects/hello/{place}" for place in places), "/"]
    offered = [page for page in pages if offer in client.get(page).content.decode()]
    assert offered == pages
    archiving.archive(project=hello, user=alice)
    pages[-1] = "/?show=archived"
    assert [page for page in pages if offer in client.get(page).content.decode()] == []
