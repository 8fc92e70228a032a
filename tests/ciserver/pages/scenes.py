"""The stage hand: what a worker, a pusher or a host would do, on request from a test.

Run as a program it reads calls as JSON lines and answers each with one; see ``serving``.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")
import django

if __name__ == "__main__":
    django.setup()

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.template.loader import render_to_string
from django.test import RequestFactory
from django.utils import timezone

from ciserver.accounts import lock
from ciserver.accounts.models import Scope, Team, Token, User
from ciserver.accounts.sessions import SessionStore
from ciserver.accounts.users import password_link
from ciserver.lib.problems import Refused
from ciserver.pipelines import events
from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import Job, JobKind, Pipeline, State, Step
from ciserver.projects.models import Membership, Project, Role
from ciserver.releases import environments
from ciserver.releases.daytwo import attending, wire
from ciserver.releases.models import (
    CommandState,
    ContainerCommand,
    Deployment,
    DeploymentState,
    DeploymentStep,
    Environment,
    Running,
)
from ciserver.webhooks.models import Verdict
from tests.ciserver.pages import seeding
from tests.ciserver.pipelines.test_starts import YAML, Hosted

_writers: dict[int, LogWriter] = {}


def user(name: str, role: str = "") -> None:
    made = User.objects.create_user(name, f"{name}@example.org", f"{name}-password-1")
    if role:
        hello = Project.objects.get(slug="hello")
        Membership.objects.create(project=hello, user=made, role=Role[role.upper()])


def administrator(name: str) -> None:
    User.objects.create_superuser(name, f"{name}@example.org", f"{name}-password-1")


def first_push(slug: str) -> None:
    """A project's first commit was pushed, built, tested and released."""
    project = Project.objects.get(slug=slug)
    pipeline = seeding.make_passed(project, 1, title="The first commit")
    seeding.make_release(pipeline, 1)
    seeding.make_image(pipeline)
    seeding.make_delivery(project, pipeline, 1)


def delivered(slug: str, ref: str) -> None:
    """A webhook came, and nothing is to be built."""
    project = Project.objects.get(slug=slug)
    fields = {"verdict": Verdict.IGNORED, "forge": "github", "detail": "Branch was deleted."}
    seeding.make_delivery(project, None, 900, ref=ref, delivery_id=f"{slug}-{ref}", **fields)


def join(slug: str, name: str, role: str) -> None:
    project, member = Project.objects.get(slug=slug), User.objects.get(username=name)
    Membership.objects.update_or_create(
        project=project, user=member, defaults={"role": Role[role.upper()]}
    )


def rename(old: dict[str, str], new: dict[str, str]) -> None:
    """A project, one of its environments, and jobs of one name: ``slug``, ``place`` and ``job``."""
    project = Project.objects.get(slug=old["slug"])
    project.environments.filter(name=old["place"]).update(name=new["place"])
    Job.objects.filter(pipeline__project=project, name=old["job"]).update(name=new["job"])
    Project.objects.filter(pk=project.pk).update(slug=new["slug"])


def guessed(name: str, times: int) -> None:
    """Wrong passwords from here: looking at one takes a third of a second, on purpose."""
    for _ in range(times):
        lock.failed(lock.begin(name, "127.0.0.1"), through="page")


def session(name: str) -> str:
    signed_in = User.objects.get(username=name)
    store = SessionStore()
    store[SESSION_KEY] = str(signed_in.pk)
    store[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    store[HASH_SESSION_KEY] = signed_in.get_session_auth_hash()
    store.save()
    return str(store.session_key)


def history() -> None:
    """alice's projects: ``hello`` with two environments, and its neighbours."""
    user("alice")
    alice = User.objects.get(username="alice")
    seeding.make_hello(alice)
    seeding.make_others(alice)


def rarities() -> dict[str, str]:
    """What a history leaves out, by its name in ``addresses``: a repository with inputs to fill
    in, a promotion that waits for alice, a command that ended, a team, a newcomer with a link
    to set a password, a token of one project, and a project that is to be deleted."""
    alice = User.objects.get(username="alice")
    quay = seeding.make_project("quay", alice)
    qa, prod = seeding.make_environments(quay, "qa", "prod")
    with TemporaryDirectory() as folder:
        Hosted(quay, Path(folder) / "tree").push({"gantry.yml": YAML})
    release = seeding.make_release(seeding.make_passed(quay, 1), 1)
    seeding.deploy(release, qa)
    Environment.objects.filter(pk=prod.pk).update(approvals=1)
    prod.approvers.add(alice)
    waiting = Deployment.objects.create(
        environment=prod, release=release, kind="promotion", state=DeploymentState.WAITING,
        requested_by="bob", reason="It waits for one of alice.",
    )  # fmt: skip
    command = ContainerCommand.objects.create(
        environment=qa, host=qa.hosts.get(), verb="logs", asked_by="alice",
        state=CommandState.ENDED, exit_code=1,
    )  # fmt: skip
    Team.objects.create(name="crew").members.add(alice)
    hello = Project.objects.get(slug="hello")
    Token.make(user=alice, name="deploy script", scope=Scope.WRITE, project=hello)
    now = timezone.now()
    ending = {"archived_at": now, "archived_by": "alice", "delete_at": now + timedelta(days=7)}
    seeding.make_project("shed", alice, **ending)
    user("newcomer")
    link = password_link(User.objects.get(username="newcomer"))
    return {
        "waiting": str(waiting.pk),
        "command": str(command.pk),
        "set_password": urlsplit(link).path,
    }


def drawn(name: str) -> str:
    """An error's page as the service draws it: those of a broken one know no request."""
    refusal = Refused("v3 never ran in qa.", code="x", hint="Promote it there first.", status=409)
    request = RequestFactory().get("/")
    request.user = User.objects.get(username="alice")
    context = {"refusal": refusal, "back": "/"}
    return render_to_string(name, context, None if name in {"500.html", "503.html"} else request)


def start(slug: str = "hello", title: str = "Watch me") -> dict[str, int]:
    """A pipeline whose build job runs; its first step came from the cache, the second goes on."""
    project = Project.objects.get(slug=slug)
    number = project.pipelines.order_by("-number").values_list("number", flat=True)[0] + 1
    pipeline = seeding.make_pipeline(project, number, state=State.RUNNING, title=title)
    now = timezone.now()
    Pipeline.objects.filter(pk=pipeline.pk).update(created_at=now, started_at=now)
    job = Job.objects.create(
        pipeline=pipeline, position=1, name="build", kind=JobKind.BUILD, state=State.RUNNING,
        started_at=now,
    )  # fmt: skip
    _writers[pipeline.pk] = LogWriter(job.log_path)
    step(pipeline.pk, position=1, text="FROM debian:bookworm", cached=True, state=State.PASSED)
    step(pipeline.pk, position=2, text="RUN make", state=State.RUNNING)
    return {"id": pipeline.pk, "number": number}


def step(pipeline: int, position: int, **fields: Any) -> None:
    job = Job.objects.get(pipeline=pipeline, position=1)
    Step.objects.update_or_create(job=job, position=position, defaults=fields)
    events.publish(pipeline)


def write(pipeline: int, text: str, step: int = 2, times: int = 1, stream: str = "out") -> None:
    _writers[pipeline].write(step, stream, text.encode() * times)


def number_lines(pipeline: int, first: int, last: int, every: int = 0, pause: float = 0) -> None:
    """Lines that hold their number, with a pause after ``every`` of them."""
    for number in range(first, last + 1):
        _writers[pipeline].write(2, "out", f"line {number}.\n".encode())
        if every and number % every == 0:
            time.sleep(pause)


def more_jobs(pipeline: int) -> None:
    for position, name, kind in ((2, "unit", JobKind.TEST), (3, "push", JobKind.PUSH)):
        Job.objects.create(pipeline_id=pipeline, position=position, name=name, kind=kind)
    events.publish(pipeline)


def fail(pipeline: int, reason: str, place: str, hint: str = "") -> None:
    """The build's second step fails, and with it everything."""
    receipt = seeding.receipt(1.5, 40 * seeding.MIB, exit_code=2)
    step(pipeline, position=2, state=State.FAILED, seconds=1.5, receipt=receipt)
    _writers.pop(pipeline).close()
    end = {"state": State.FAILED, "reason": reason, "place": place}
    now = timezone.now()
    Job.objects.filter(pipeline=pipeline, position=1).update(hint=hint, finished_at=now, **end)
    Job.objects.filter(pipeline=pipeline, position__gt=1).update(state=State.CANCELLED)
    Pipeline.objects.filter(pk=pipeline).update(finished_at=now, **end)
    events.publish(pipeline)


def finish(pipeline: int) -> None:
    _writers.pop(pipeline).close()
    now = timezone.now()
    Step.objects.filter(job__pipeline=pipeline).update(state=State.PASSED, seconds=1)
    Job.objects.filter(pipeline=pipeline).update(state=State.PASSED, finished_at=now)
    Pipeline.objects.filter(pk=pipeline).update(state=State.PASSED, finished_at=now)
    events.publish(pipeline)


def read_image(pipeline: int) -> None:
    """A worker has read what the pipeline pushed."""
    row = Pipeline.objects.get(pk=pipeline)
    digest = seeding.digest_of(f"image of {pipeline}")
    Pipeline.objects.filter(pk=pipeline).update(digest=digest, repository="127.0.0.1:5055/hello")
    row.refresh_from_db()
    seeding.make_image(row)


def restart(pipeline: int) -> None:
    """Another worker takes the pipeline up after the first one died."""
    row = Pipeline.objects.get(pk=pipeline)
    row.jobs.all().delete()
    Pipeline.objects.filter(pk=pipeline).update(attempt=row.attempt + 1)
    _writers.pop(pipeline).close()
    job = Job.objects.create(
        pipeline=row, position=1, name="build", kind=JobKind.BUILD, state=State.RUNNING
    )
    _writers[pipeline] = LogWriter(job.log_path)
    step(pipeline, position=2, text="RUN make again", state=State.RUNNING)


def last_deployment() -> dict[str, Any]:
    row = Deployment.objects.select_related("environment", "release").latest("pk")
    return {
        "id": row.pk,
        "release": row.release.name,
        "environment": row.environment.name,
        "state": row.state,
        "by": row.requested_by,
    }


def harbour(slug: str) -> None:
    """A project whose first release is on its way from qa to prod."""
    project = seeding.make_project(slug, User.objects.get(username="alice"))
    qa, prod = seeding.make_environments(project, "qa", "prod")
    release = seeding.make_release(seeding.make_passed(project, 1), 1)
    seeding.deploy(release, qa)
    Deployment.objects.create(
        environment=prod, release=release, kind="promotion", state=DeploymentState.RUNNING
    )


def approvals(slug: str, environment: str, needed: int, approvers: str) -> None:
    """How many of whom a promotion needs."""
    place = Environment.objects.get(project__slug=slug, name=environment)
    owner = User.objects.get(username="alice")
    environments.change(
        environment=place, user=owner, approvals=needed, approvers=approvers.split()
    )


def arrive(deployment: int) -> None:
    """The host has it: healthy, and serving."""
    row = Deployment.objects.get(pk=deployment)
    host = row.environment.hosts.get()
    DeploymentStep.objects.create(
        deployment=row, host=host, position=1, name="start", state=DeploymentState.SUCCEEDED
    )
    Running.objects.update_or_create(
        environment=row.environment,
        host=host,
        defaults={
            "release": row.release,
            "container_id": "c" * 64,
            "digest": row.release.digest,
            "since": timezone.now(),
        },
    )
    Deployment.objects.filter(pk=deployment).update(
        state=DeploymentState.SUCCEEDED, finished_at=timezone.now()
    )


def take_command() -> int:
    """The watcher takes the command that was asked for last."""
    return attending.claim()[-1]


def say(command: int, text: str, stream: str = "out") -> None:
    wire.Line(command).send(b"e" if stream == "err" else b"o", text.encode())


def end_command(command: int, exit_code: int | None = None, reason: str = "") -> None:
    attending._end(ContainerCommand.objects.get(pk=command), exit_code, reason)
    wire.Line(command).end(exit_code=exit_code, reason=reason)


SCENES: dict[str, Callable[..., Any]] = {
    scene.__name__: scene
    for scene in (
        user, administrator, first_push, delivered, join, session, history, start, step, write,
        number_lines, more_jobs, fail, finish, restart, last_deployment, approvals, arrive,
        harbour, read_image, rarities, drawn, take_command, say, end_command, rename,
        guessed,
    )
}  # fmt: skip


def main() -> None:
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"value": SCENES[name](**arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
