"""Several images of one project: built apart, tested together, pushed and released as one."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest

from builders.images.reference import Reference
from builders.images.store import Store
from builders.registry import Registry
from ciserver.lib.registry_lock import nothing_named
from ciserver.pipelines.definition import Definition
from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import Job, Pipeline
from ciserver.pipelines.runner import story
from ciserver.pipelines.runner.images import image_of
from ciserver.pipelines.runner.jobs import JobFailed, JobRun
from ciserver.pipelines.runner.plan import planned
from ciserver.pipelines.service_definition import Service
from ciserver.projects.models import Membership, Project, Role
from ciserver.releases import services as releases
from ciserver.releases.models import Environment, Host, Running
from tests.ciserver.pipelines.workplace import Workplace, log_of

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]

TWO = {
    "web/Dockerfile": "FROM busybox\nCOPY page /www/\nEXPOSE 80\nCMD httpd -f -h /www\n",
    "web/page": "from web\n",
    "worker/Dockerfile": "FROM busybox AS test\nFROM busybox\nCOPY job.sh /job.sh\n",
    "worker/job.sh": "wget -q -O - http://web/page\n",
    "gantry.yml": """
images:
  worker: {context: worker}
  web: {context: web}
deploy: web
tests:
  together:
    image: worker
    command: ["sh", "/job.sh"]
    memory: 64m
    services: {web: {image: web, memory: 64m}}
  alone: {image: "busybox:latest", command: "test ! -e /job.sh", memory: 64m}
""",
}


def test_each_has_a_job_and_a_repository_and_the_release_holds_both(
    workplace: Workplace, client: Any, alice: Any
) -> None:
    pipeline = workplace.run(TWO)
    assert (pipeline.state, pipeline.reason) == ("passed", "")
    jobs = {job.name: job for job in pipeline.jobs.all()}
    assert list(jobs) == ["build web", "build worker", "together", "alone", "push"]
    assert jobs["together"].needs == ["build worker", "build web"]
    assert "out from web" in log_of(jobs["together"])
    host = workplace.workshop.config.registry
    assert pipeline.repository == f"{host}/hello"
    assert {name: one["repository"] for name, one in pipeline.images.items()} == {
        "web": f"{host}/hello",
        "worker": f"{host}/hello/worker",
    }
    assert pipeline.images["web"]["digest"] == pipeline.digest
    elsewhere = Store(workplace.folder / f"other-{pipeline.pk}")
    with Registry(host, patience=5) as registry:
        pulled = registry.pull(
            Reference.parse(f"{host}/hello/worker@{pipeline.images['worker']['digest']}"), elsewhere
        )
    assert pulled.config.diff_ids

    release = releases.make_release(pipeline)
    assert release.images == pipeline.images
    assert len(release.every_image()) == 2
    client.force_login(alice)
    page = client.get(release.get_absolute_url()).content.decode()
    assert f"hello/worker@{pipeline.images['worker']['digest']}" in page
    assert "the one that environments run" in page


def test_nothing_is_deleted_from_the_registry_between_a_push_and_its_record(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recorded, free = workplace.workshop.config.run, story._finish, []

    def record(*args: Any) -> None:
        with nothing_named(run, patience=0) as nobody_pushes:
            free.append(nobody_pushes)
        recorded(*args)

    monkeypatch.setattr(story, "_finish", record)
    assert workplace.run({"Dockerfile": "FROM busybox\nCMD true\n"}).state == "passed"
    with nothing_named(run, patience=0) as nobody_pushes:
        assert (free, nobody_pushes) == ([False], True)


def test_a_failed_build_skips_what_needs_it_and_pushes_nothing(workplace: Workplace) -> None:
    broken = TWO | {"worker/Dockerfile": "FROM busybox\nRUN exit 7\n"}
    pipeline = workplace.run(broken)
    assert pipeline.state == "failed"
    assert pipeline.reason.startswith("Build worker: ")
    jobs = {job.name: job for job in pipeline.jobs.all()}
    assert jobs["together"].reason == "It needs build worker, which failed."
    assert jobs["alone"].state == "passed"
    assert (pipeline.digest, pipeline.images) == ("", {})


def test_an_image_that_is_not_released_is_for_tests_alone(workplace: Workplace) -> None:
    files = TWO | {"gantry.yml": TWO["gantry.yml"].replace("worker}", "worker, release: false}")}
    pipeline = workplace.run(files)
    assert (pipeline.state, pipeline.images) == ("passed", {})


def test_one_image_has_no_name_anywhere(workplace: Workplace) -> None:
    pipeline = workplace.run({"Dockerfile": "FROM busybox\n"})
    assert [job.name for job in pipeline.jobs.all()] == ["build", "push"]
    assert pipeline.images == {}


def test_a_test_beside_what_runs_in_an_environment_now(workplace: Workplace) -> None:
    released = releases.make_release(workplace.run(TWO))
    qa = Environment.objects.create(project=workplace.project, name="qa", position=1)
    asked = {
        "gantry.yml": "images: {web: {context: web}}\ntests: {old: {command: 'wget -q -O - "
        "http://old/page', memory: 64m, services: {old: {image: hello@qa, memory: 64m}}}}\n",
        "web/page": "newer\n",
    }
    job = _only_test(workplace, asked)
    assert job.reason == "Nothing runs in hello@qa yet."
    assert job.place == "gantry.yml: tests.old.services.old.image"

    host = Host.objects.create(name="here")
    Running.objects.create(
        environment=qa, host=host, release=released, container_id="c",
        digest=released.digest, since=released.created_at,
    )  # fmt: skip
    job = _only_test(workplace, asked)
    assert (job.state, job.reason) == ("passed", "")
    assert "out from web" in log_of(job)
    assert f"hello@qa runs v1, {released.digest}." in log_of(job)


def test_another_projects_image_is_for_those_who_are_all_members_there(
    workplace: Workplace, alice: Any, bob: Any
) -> None:
    other = Project.objects.create(slug="other")
    Membership.objects.create(project=other, user=alice, role=Role.OWNER)
    Environment.objects.create(project=other, name="qa", position=1)
    asked = {
        "Dockerfile": "FROM busybox\n",
        "gantry.yml": "tests: {a: {image: other@qa, command: 'true', memory: 64m}}\n",
    }
    assert "no project 'other' whose images this one may use" in _only_test(workplace, asked).reason
    Membership.objects.create(project=other, user=bob, role=Role.VIEWER)
    assert _only_test(workplace, asked).reason == "Nothing runs in other@qa yet."


def test_a_repository_elsewhere_whose_pushers_are_nobodys_members_uses_its_own_alone(
    workplace: Workplace, alice: Any, bob: Any
) -> None:
    other = Project.objects.create(slug="other", clone_url="https://forge.example/b.git")
    for user in (alice, bob):
        Membership.objects.create(project=other, user=user, role=Role.OWNER)
    own = workplace.project
    part = Service(image="other@qa")
    plan = planned(Definition(), {})

    def refused() -> str:
        job = Job(pipeline=Pipeline(project=own, number=1, protected=True), name="a")
        with (
            LogWriter(workplace.folder / "none.log") as log,
            pytest.raises(JobFailed) as caught,
        ):
            image_of(JobRun(job, workplace.workshop, log, Event()), plan, {}, part)
        return caught.value.reason

    assert refused() == "other has no environment 'qa'."
    own.clone_url = "https://forge.example/a.git"
    assert refused() == "There is no project 'other' whose images this one may use."
    own.clone_url = other.clone_url  # whoever pushes to the one pushes to the other
    assert refused() == "other has no environment 'qa'."
    Membership.objects.filter(project=other, user=bob).delete()
    assert refused() == "There is no project 'other' whose images this one may use."


def _only_test(workplace: Workplace, files: dict[str, str]) -> Job:
    job: Job = workplace.run(files).jobs.get(kind="test")
    return job
