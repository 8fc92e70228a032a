"""Who may see and do what on pages: alice owns, bob develops, charlie must be refused."""

from __future__ import annotations

from typing import Any

from django.test import Client

from ciserver.pipelines.models import Pipeline, State
from ciserver.releases.models import Deployment
from tests.ciserver.pages.seeding import make_pipeline

PAGES = [
    "/projects/hello/",
    "/projects/hello/pipelines/5/",
    "/projects/hello/pipelines/5/coverage/",
    "/projects/hello/pipelines/5/events",
    "/projects/hello/pipelines/5/jobs/1/log?before=5-100",
    "/projects/hello/pipelines/5/jobs/1/lines?line=1",
    "/projects/hello/tests/",
    "/projects/hello/start/",
    "/projects/hello/secrets/",
    "/projects/hello/building/",
    "/projects/hello/deliveries/",
    "/projects/hello/environments/qa/secrets/",
    "/projects/hello/releases/4/",
    "/projects/hello/releases/4/promote/prod/",
    "/projects/hello/releases/4/roll-back/qa/",
]
FORMS = [
    "/projects/hello/hook-secret/",
    "/projects/hello/secrets/",
    "/projects/hello/secrets/remove/",
    "/projects/hello/start/",
    "/projects/hello/building/",
    "/projects/hello/environments/qa/secrets/",
    "/projects/hello/environments/qa/secrets/remove/",
    "/projects/hello/pipelines/9/cancel/",
    "/projects/hello/releases/4/promote/prod/",
    "/projects/hello/releases/4/roll-back/qa/",
]


def test_nobody_sees_a_page_without_signing_in(hello: Any) -> None:
    for url in ["/", "/new-project/", *PAGES]:
        answer = Client().get(url)
        if url.endswith("events"):
            assert answer.status_code == 404, url
        else:
            assert answer.status_code == 302, url
            assert answer["Location"].startswith("/login/?next="), url


def test_a_stranger_gets_the_same_answer_as_for_nothing(
    hello: Any, charlie: Any, sign_in: Any
) -> None:
    client = sign_in(charlie)
    for url in PAGES:
        mine = client.get(url)
        nothing = client.get(url.replace("hello", "no-such-project"))
        assert mine.status_code == nothing.status_code == 404, url
        assert "hello" not in mine.content.decode().lower(), url


def test_a_strangers_matrix_does_not_name_the_project(
    hello: Any, charlie: Any, sign_in: Any
) -> None:
    assert "/projects/hello/" not in sign_in(charlie).get("/").content.decode()


def test_a_developer_sees_every_page(hello: Any, bob: Any, sign_in: Any) -> None:
    client = sign_in(bob)
    for url in PAGES:
        if not url.endswith("events"):
            assert client.get(url).status_code in {200, 400}, url


def test_a_stranger_cannot_send_a_form(hello: Any, charlie: Any, sign_in: Any) -> None:
    make_pipeline(hello, 9, state=State.RUNNING)
    before = Deployment.objects.count()
    client = sign_in(charlie)
    for url in FORMS:
        assert client.post(url).status_code == 404, url
        assert Deployment.objects.count() == before, url
        assert Pipeline.objects.get(number=9).cancel_requested_by == "", url


def test_a_form_without_its_token_is_refused_with_the_next_step(hello: Any, alice: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    for url in FORMS:
        answer = client.post(url)
        assert answer.status_code == 403, url
        assert "This form is too old" in answer.content.decode(), url


def test_a_developer_is_offered_no_promotion_and_refused_one(
    hello: Any, bob: Any, sign_in: Any
) -> None:
    client = sign_in(bob)
    for page in ("/", "/projects/hello/", "/projects/hello/releases/4/"):
        assert "data-dialog" not in client.get(page).content.decode()
    answer = client.post("/projects/hello/releases/4/promote/prod/")
    assert answer.status_code == 403
    assert "This needs the role maintainer in hello." in answer.content.decode()
    assert "Ask an owner of the project." in answer.content.decode()


def test_a_developer_cannot_replace_the_webhook_secret(hello: Any, bob: Any, sign_in: Any) -> None:
    hello.renew_hook_secret()
    sealed = hello.hook_secret_sealed
    client = sign_in(bob)
    assert "hook-secret" not in client.get("/projects/hello/").content.decode()
    assert client.post("/projects/hello/hook-secret/").status_code == 403
    hello.refresh_from_db()
    assert hello.hook_secret_sealed == sealed


def test_a_viewer_cannot_cancel(hello: Any, charlie: Any, sign_in: Any) -> None:
    from ciserver.projects.models import Membership, Role

    Membership.objects.create(project=hello, user=charlie, role=Role.VIEWER)
    make_pipeline(hello, 9, state=State.RUNNING)
    client = sign_in(charlie)
    assert "cancel/" not in client.get("/projects/hello/pipelines/9/").content.decode()
    assert client.post("/projects/hello/pipelines/9/cancel/").status_code == 403
    assert Pipeline.objects.get(number=9).cancel_requested_by == ""


def test_pages_are_read_only_addresses(hello: Any, alice: Any, sign_in: Any) -> None:
    client = sign_in(alice)
    for url in ("/projects/hello/pipelines/5/", "/projects/hello/", "/"):
        assert client.post(url).status_code == 405, url


def test_signing_in_leads_nowhere_else(alice: Any) -> None:
    login = {"username": "alice", "password": "alice-password-1"}
    answer = Client().post("/login/?next=https://evil.example/", login)
    assert answer["Location"] == "/"
    answer = Client().post("/login/", login | {"next": "/projects/hello/"})
    assert answer["Location"] == "/projects/hello/"
