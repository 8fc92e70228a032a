"""Every route x method x caller against the written matrix (matrix.py)."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import transaction
from django.test import Client

from tests.ciserver.access.matrix import MATRIX, OTHERWISE, Ask, Who
from tests.ciserver.access.routes import METHODS, Route, routes
from tests.conftest import api_as

pytestmark = pytest.mark.django_db

# Parameters that mean different things in different routes get a name of their own.
RENAMED = {
    "/projects/{slug}/releases/{number}/": "/projects/{slug}/releases/{release}/",
    "/artifacts/{pk}": "/artifacts/{artifact}",
    "/webhooks/{pk}/": "/webhooks/{webhook}/",
    "/secrets/{name}/": "/secrets/{secret}/",
    "/deliveries/{number}/": "/deliveries/{delivery}/",
    "/hosts/{name}/": "/hosts/{host}/",
    "/teams/{name}/": "/teams/{team}/",
}
CASES = [(path, ask) for path, asks in MATRIX.items() for ask in asks]


@pytest.fixture(scope="module")
def known() -> dict[str, Route]:
    return {_renamed(route.path): route for route in routes()}


def _renamed(path: str) -> str:
    for old, new in RENAMED.items():
        path = path.replace(old, new)
    return path


def test_every_route_has_a_row_and_every_row_a_route(known: dict[str, Route]) -> None:
    rows = {*MATRIX, *OTHERWISE}
    assert sorted(set(known) - rows) == [], "Add a row to tests/ciserver/access/matrix.py."
    assert sorted(rows - set(known)) == [], "These rows are of no route."
    assert set(MATRIX) & set(OTHERWISE) == set()


@pytest.fixture
def world(alice: Any, bob: Any, charlie: Any) -> dict[str, Any]:
    """One of everything in project ``hello``; callers by who they are in it."""
    from ciserver.accounts.models import AuditEntry, Team, User
    from ciserver.lib.crypto import Secret
    from ciserver.notifications import outgoing, services
    from ciserver.pipelines.models import Artifact, Inspection, State
    from ciserver.projects.models import Membership, Role, TeamMembership
    from ciserver.projects.services import set_secret
    from ciserver.releases import secrets
    from ciserver.releases.models import (
        ContainerCommand,
        Deployment,
        DeploymentState,
        Stop,
    )
    from ciserver.webhooks.models import PullRequest
    from tests.ciserver.pages.seeding import make_hello, make_pipeline, make_project

    hello = make_hello(alice)
    make_project("other", charlie)
    people: dict[Who, Any] = {Who.STRANGER: charlie, Who.DEVELOPER: bob, Who.OWNER: alice}
    Membership.objects.create(project=hello, user=bob, role=Role.DEVELOPER)
    for who, role in ((Who.VIEWER, Role.VIEWER), (Who.MAINTAINER, Role.MAINTAINER)):
        people[who] = User.objects.create_user(who.name.lower())
        Membership.objects.create(project=hello, user=people[who], role=role)
    people[Who.ADMIN] = User.objects.create_superuser("root")
    dora = User.objects.create_user("dora")
    Membership.objects.create(project=hello, user=dora, role=Role.VIEWER)
    crew = Team.objects.create(name="crew")
    crew.members.add(dora)
    TeamMembership.objects.create(project=hello, team=crew, role=Role.VIEWER)
    set_secret(project=hello, user=alice, name="KEY", value=Secret("the-secret-itself"))
    pipeline = hello.pipelines.get(number=6)
    job = pipeline.jobs.order_by("position")[0]
    artifact = Artifact.objects.create(
        job=job, path="a.txt", size=1, sha256="0" * 64, expires_at="2999-01-01T00:00:00Z"
    )
    artifact.file.parent.mkdir(parents=True, exist_ok=True)
    artifact.file.write_text("a")
    prod = hello.environments.get(name="prod")
    newest = hello.releases.order_by("-number")[0]
    waiting = Deployment.objects.create(
        environment=prod,
        release=newest,
        kind="promotion",
        state=DeploymentState.WAITING,
        requested_by="somebody",
    )
    prod.approvals = 1
    prod.save()
    secrets.set_secret(environment=prod, user=alice, name="KEY", value=Secret("the-secret-itself"))
    secrets.set_secret(
        environment=hello.environments.get(name="qa"),
        user=alice,
        name="KEY",
        value=Secret("the-secret-itself"),
    )
    pull = PullRequest.objects.create(
        project=hello, forge="github", number=3, head="x", base="main", sha="1" * 40, from_fork=True
    )
    services.set_target(
        project=hello, user=alice, forge="gitea", repository="a/b", token=Secret("a-token-1")
    )
    webhook, _ = outgoing.add(project=hello, user=alice, url="https://1.1.1.1/")
    message = outgoing.ping(endpoint=webhook, user=alice)
    inspection = Inspection.objects.create(job=job, asked_by="alice", kept="x", command=["ls"])
    stop = Stop.objects.create(project=hello, reason="Wait", by="somebody")
    running = make_pipeline(hello, 60, state=State.RUNNING)
    return {
        "people": people,
        "slug": "hello",
        "number": 6,
        "job": job.position,
        "artifact": artifact.pk,
        "name": "qa",
        "secret": "KEY",
        "webhook": webhook.pk,
        "message": message.pk,
        "username": "dora",
        "team": "crew",
        "tag": "projects",
        "release": newest.number,
        "environment": "prod",
        "verb": "logs",
        "host": prod.hosts.get().name,
        "digest": newest.digest,
        "other": newest.pipeline.image_uses.get().pk,
        "delivery": hello.deliveries.order_by("pk")[0].pk,
        "pk": {
            "pipelines": pipeline.pk,
            "cancel": running.pk,
            "jobs": job.pk,
            "artifacts": artifact.pk,
            "releases": newest.pk,
            "images": newest.pipeline.image_uses.get().pk,
            "environments": prod.pk,
            "pull-requests": pull.pk,
            "pulls": pull.pk,
            "inspections": inspection.pk,
            "hosts": prod.hosts.get().pk,
            "deployments": waiting.pk,
            "stops": stop.pk,
            "commands": ContainerCommand.objects.create(
                environment=prod, verb="ps", asked_by="somebody"
            ).pk,
            "audit": AuditEntry.objects.get(action="project.secret.set").pk,
            "deliveries": hello.deliveries.order_by("pk")[0].pk,
        },
    }


def test_each_caller_is_let_in_or_refused_as_the_matrix_says(world: dict[str, Any]) -> None:
    wrong = []
    clients: dict[tuple[Who, bool], Any] = {}
    for path, ask in CASES:
        url = url_of(path, world)
        for who in Who:
            kind = (who, _takes_a_token(url))
            client = clients.get(kind) or _client(who, url, world)
            clients[kind] = client
            status, where = _asked_by(who, ask, url, world, client)
            if _refused(status, where) != (who < ask.least) or status >= 500:
                wrong.append(f"{ask.method} {url} by {who.name}: {status}, is for {ask.least.name}")
    assert wrong == []


def test_a_token_that_may_only_read_changes_nothing(world: dict[str, Any]) -> None:
    client = api_as(world["people"][Who.ADMIN], "read")
    for path, ask in CASES:
        if ask.method != "GET" and path.startswith("/api/"):  # pages take no token at all
            url = url_of(path, world)
            answer = client.generic(ask.method, url, "{}", content_type="application/json")
            assert answer.status_code == 403, (ask.method, url)


def test_methods_that_have_no_row_are_not_answered(world: dict[str, Any]) -> None:
    wrong = []
    for path, asks in MATRIX.items():
        client = _client(Who.ADMIN, path, world)
        for method in set(METHODS) - {ask.method for ask in asks}:
            answer = client.generic(method, url_of(path, world))
            if answer.status_code != 405:
                wrong.append((method, path, answer.status_code))
    assert wrong == []


def test_what_a_stranger_may_ask_tells_nothing_of_the_project(world: dict[str, Any]) -> None:
    owner = str(world["people"][Who.OWNER])
    for path, ask in CASES:
        if ask == Ask("GET", Who.STRANGER):
            text = _client(Who.STRANGER, path, world).get(url_of(path, world)).content.decode()
            assert "hello" not in text, path
            assert owner not in text, path


def _asked_by(who: Who, ask: Ask, url: str, world: dict[str, Any], client: Any) -> tuple[int, str]:
    """Status and Location; whatever it did is undone, so that the client is signed in as before."""
    cookies = deepcopy(client.cookies)
    with transaction.atomic():
        answer = ask_as(who, ask, url, world, client=client)
        transaction.set_rollback(True)
    client.cookies = cookies
    return answer.status_code, answer.headers.get("Location", "")


def ask_as(
    who: Who, ask: Ask, url: str, world: dict[str, Any], *, client: Any = None, **options: Any
) -> Any:
    """The answer; what it did is done."""
    client = client or _client(who, url, world)
    if ask.method == "DELETE" and ask.body:
        url = f"{url}?{urlencode(ask.body)}"
        ask = ask._replace(body={})
    if url.startswith("/api/") and ask.method != "GET":
        body = {
            key: world["pk"]["jobs"] if word == "{job_pk}" else word
            for key, word in ask.body.items()
        }
        return getattr(client, ask.method.lower())(url, body, format="json", **options)
    return getattr(client, ask.method.lower())(url, _form(ask))


def _form(ask: Ask) -> dict[str, Any]:
    """A form that is sent is never empty: it has at least its token against forgery."""
    return ask.body or ({"any": "1"} if ask.method == "POST" else {})


def _client(who: Who, url: str, world: dict[str, Any]) -> Any:
    user = world["people"].get(who)
    if user is not None and _takes_a_token(url):
        return api_as(user)
    client = Client(raise_request_exception=False)
    if user is not None:
        client.force_login(user)
    return client


def _takes_a_token(url: str) -> bool:
    return url.startswith("/api/") or url in {"/metrics", "/cctray.xml"}


def _refused(status: int, where: str) -> bool:
    return status in {401, 403, 404} or (status == 302 and where.startswith("/login/"))


def url_of(path: str, world: dict[str, Any]) -> str:
    values = {key: value for key, value in world.items() if key not in {"people", "pk"}}
    if "{pk}" in path:
        parts = path.split("/")
        of = (
            "cancel" if path.endswith("/pipelines/{pk}/cancel/") else parts[parts.index("{pk}") - 1]
        )
        values["pk"] = world["pk"][of]
    return path.format(**values)


@pytest.fixture(autouse=True)
def quietly(caplog: Any) -> Iterator[None]:
    """Refusals are logged, hundreds of them."""
    caplog.set_level("CRITICAL")
    yield
