"""What each page says, and what it says when there is nothing yet."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.test import Client
from django.utils import timezone

from ciserver.dashboard import views
from ciserver.lib.http import POLICY
from ciserver.pipelines.models import JobKind, Pipeline, State, Step
from ciserver.releases.models import Deployment, DeploymentState, Environment, Release, Running
from tests.ciserver.pages import seeding


def page(client: Client, url: str, status: int = 200) -> str:
    answer = client.get(url)
    assert answer.status_code == status, answer.content.decode()[-2000:]
    return " ".join(answer.content.decode().split())


# Sign-in


def test_a_wrong_password_is_one_clear_sentence(alice: Any) -> None:
    answer = Client().post("/login/", {"username": "alice", "password": "wrong"})
    assert "This name and password do not belong together." in answer.content.decode()


def test_empty_fields_are_named() -> None:
    text = Client().post("/login/", {"username": "", "password": ""}).content.decode()
    assert "Enter your name." in text
    assert "Enter your password." in text


def test_signing_in_names_the_commands_that_print_a_first_password(db: None) -> None:
    text = page(Client(), "/login/")
    assert "<code>./gantry admin</code> or <code>./gantry demo</code>" in text


# Matrix


def test_the_empty_matrix_leads_to_the_first_push_in_three_steps(alice: Any, sign_in: Any) -> None:
    text = page(sign_in(alice), "/")
    assert "Three steps to your first container" in text
    assert "git push gantry main" in text
    assert '<a class="button primary" href="/new-project/">New project</a>' in text


def test_the_matrix_shows_what_runs_where(hello: Any, alice: Any, sign_in: Any) -> None:
    text = page(sign_in(alice), "/")
    assert "behind by 2" in text
    assert 'href="/projects/hello/releases/5/promote/prod/"' in text
    assert "Promote v5" in text
    assert "all healthy" in text
    assert "Shorten names that are too long" in text


def test_an_unhealthy_environment_is_said_in_words(hello: Any, alice: Any, sign_in: Any) -> None:
    Running.objects.filter(environment__name="prod").update(healthy=False)
    text = page(sign_in(alice), "/")
    assert "<b>1</b> unhealthy" in text


def test_a_host_that_runs_something_else_is_drift(hello: Any, alice: Any, sign_in: Any) -> None:
    Running.objects.filter(environment__name="prod").update(digest=seeding.digest_of("other"))
    assert ">drift</span>" in page(sign_in(alice), "/")


@pytest.mark.parametrize("show", ["unhealthy", "drift", "waiting", "moving"])
def test_the_matrix_shows_only_what_is_asked_for(
    hello: Any, alice: Any, sign_in: Any, show: str
) -> None:
    client = sign_in(alice)
    shop = seeding.make_project("shop", alice)
    seeding.make_environments(shop, "qa")
    assert "No environment is in this state" in page(client, f"/?show={show}")
    prod = Environment.objects.get(project=hello, name="prod")
    release = Release.objects.get(project=hello, number=5)
    if show in {"waiting", "moving"}:
        state = DeploymentState.WAITING if show == "waiting" else DeploymentState.QUEUED
        Deployment.objects.create(environment=prod, release=release, kind="promotion", state=state)
    prod.running.update(healthy=show != "unhealthy", drift="Stopped." * (show == "drift"))
    text = page(client, f"/?show={show}")
    assert 'id="row-hello"' in text
    assert 'id="row-shop"' not in text
    assert f'?show={show}" aria-current="true"' in text
    assert 'id="row-shop"' in page(client, "/?show=&q=qa")
    assert 'id="row-shop"' not in page(client, "/?q=prod")


def test_a_deployment_on_its_way_is_shown_and_hides_the_button(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    release = Release.objects.get(project=hello, number=5)
    prod = Environment.objects.get(project=hello, name="prod")
    Deployment.objects.create(environment=prod, release=release, kind="promotion", state="running")
    text = page(sign_in(alice), "/")
    assert "v5 is arriving" in text
    assert "Promote v5" not in text


def test_the_same_digest_looks_the_same_on_every_page(hello: Any, alice: Any, sign_in: Any) -> None:
    from ciserver.dashboard.marks import container, mark_of

    release = Release.objects.get(project=hello, number=5)
    client = sign_in(alice)
    mark = mark_of(release.digest)
    for url in (
        "/",
        "/projects/hello/",
        "/projects/hello/pipelines/5/",
        release.get_absolute_url(),
    ):
        assert mark.label in page(client, url)
        assert f"c{mark.colour}" in page(client, url)
    assert container(release.digest) == container(release.digest)
    assert 'style="' not in container(release.digest)


def test_the_matrix_needs_the_same_number_of_queries_for_many_projects(
    hello: Any, alice: Any, sign_in: Any, django_assert_max_num_queries: Any
) -> None:
    client = sign_in(alice)
    seeding.make_others(alice)
    with django_assert_max_num_queries(14):
        client.get("/")


def test_many_projects_are_found_by_name_and_come_in_pages_of_bounded_size(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    release = Release.objects.get(project=hello, number=5)
    for number in range(60):
        other = seeding.make_project(f"project-{number:02}", alice, description="One of many")
        for environment in seeding.make_environments(other, "qa", "stage", "prod"):
            seeding.deploy(release, environment)
    client = sign_in(alice)
    first = client.get("/").content
    assert len(first) < 115_000
    assert b"1 of 3" in first
    assert "project-59" in page(client, "/?page=3")
    found = page(client, "/?q=project-4")
    assert "project-41" in found
    assert 'id="row-hello"' not in found
    assert "No project is called anything like “&lt;nothing&gt;”" in page(client, "/?q=<nothing>")
    assert "project-59" in page(client, "/?page=99")  # the last one


def test_a_page_that_asks_again_hears_that_nothing_moved(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    client = sign_in(alice)
    # What is younger than a minute is told in seconds.
    Pipeline.objects.update(created_at=F("created_at") - timedelta(hours=1))
    for url in ("/", "/projects/hello/", "/projects/hello/releases/4/"):
        first = client.get(url, headers={"X-Live": "1"})
        assert first.status_code == 200
        assert b"<html" not in first.content
        again = client.get(url, headers={"X-Live": "1", "If-None-Match": first["ETag"]})
        assert again.status_code == 304
        assert again.content == b""


# Project


def test_a_project_without_a_push_leads_to_it(project: Any, alice: Any, sign_in: Any) -> None:
    text = page(sign_in(alice), "/projects/hello/")
    assert "Push the first commit" in text
    assert "git remote add gantry http://127.0.0.1:8000/git/hello.git" in text
    assert "Nothing was delivered yet" in text
    assert "Without a secret every webhook is refused." in text


def test_a_project_of_a_forge_waits_for_its_webhook(project: Any, alice: Any, sign_in: Any) -> None:
    project.clone_url = "https://forge.example/team/hello.git"
    project.save()
    text = page(sign_in(alice), "/projects/hello/")
    assert "Waiting for the first push" in text
    assert "/hooks/github/hello/" in text
    assert "/hooks/gitea/hello/" in text


def test_a_project_lists_its_pipelines_releases_and_deliveries(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    text = page(sign_in(alice), "/projects/hello/")
    assert "Test unit: 2 of 31 cases failed" in text
    assert "Cache greetings for a minute" in text
    assert "Branch was deleted." in text


def test_a_new_secret_is_shown_once(hello: Any, alice: Any, sign_in: Any) -> None:
    client = sign_in(alice)
    answer = client.post("/projects/hello/hook-secret/")
    hello.refresh_from_db()
    secret = hello.hook_secret.reveal()
    assert secret in answer.content.decode()
    assert answer["Cache-Control"] == "no-store"
    assert secret not in page(client, "/projects/hello/")


def test_a_new_project_belongs_to_who_made_it(charlie: Any, sign_in: Any) -> None:
    client = sign_in(charlie)
    answer = client.post("/new-project/", {"slug": "mine", "description": "", "clone_url": ""})
    assert answer["Location"] == "/projects/mine/"
    assert "Push the first commit" in page(client, "/projects/mine/")


@pytest.mark.parametrize(
    ("slug", "sentence"),
    [
        ("Not A Name", "cannot be a project"),
        ("hello", "There is a project"),
        ("", "This field is required."),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_on_the_form(
    project: Any, alice: Any, sign_in: Any, slug: str, sentence: str
) -> None:
    answer = sign_in(alice).post("/new-project/", {"slug": slug})
    assert answer.status_code == 400
    assert sentence in answer.content.decode()


# Pipeline


def test_a_failed_pipeline_begins_with_why(hello: Any, alice: Any, sign_in: Any) -> None:
    text = page(sign_in(alice), "/projects/hello/pipelines/6/")
    assert text.index("2 of 31 cases failed") < text.index('id="jobs"')
    assert "gantry.yml: tests.unit" in text
    assert "2 of 31 tests failed" in text
    assert 'data-chosen="j2"' in text
    assert text.index("test_greets_by_name") < text.index("29 that did not fail")


def test_a_pipeline_that_could_not_be_planned_says_why(
    project: Any, alice: Any, sign_in: Any
) -> None:
    seeding.make_pipeline(
        project,
        1,
        state=State.FAILED,
        reason="Commit 1234 of main has no Dockerfile.",
        place="Dockerfile",
    )
    text = page(sign_in(alice), "/projects/hello/pipelines/1/")
    assert "<code>Dockerfile</code> Commit 1234 of main has no Dockerfile." in text
    assert "No job was started." in text


def test_a_hint_follows_the_reason(project: Any, alice: Any, sign_in: Any) -> None:
    pipeline = seeding.make_pipeline(project, 1, state=State.FAILED, reason="build failed")
    seeding.make_job(
        pipeline,
        1,
        "build",
        JobKind.BUILD,
        state=State.FAILED,
        place="Dockerfile:7",
        reason="There is no file 'app.pyy' in the build context.",
        hint="Did you mean 'app.py'?",
        excerpt="  COPY app.pyy /\n       ^",
    )
    text = page(sign_in(alice), "/projects/hello/pipelines/1/")
    assert "Dockerfile:7" in text
    assert "There is no file &#x27;app.pyy&#x27; in the build context." in text
    assert "Did you mean &#x27;app.py&#x27;?" in text
    assert '<pre class="excerpt" aria-label="The line"> COPY app.pyy / ^</pre>' in text


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (State.QUEUED, "Waiting for a worker"),
        (State.RUNNING, "Getting ready"),
        (State.PASSED, "its release is being made"),
        (State.CANCELLED, "Cancelled by bob."),
        (State.FAILED, "No reason was given."),
    ],
)
def test_every_state_has_its_sentence(
    project: Any, alice: Any, sign_in: Any, state: str, sentence: str
) -> None:
    reason = "Cancelled by bob." if state == State.CANCELLED else ""
    seeding.make_pipeline(project, 1, state=state, reason=reason)
    text = page(sign_in(alice), "/projects/hello/pipelines/1/")
    assert sentence in text
    assert ("data-events" in text) is (state in {State.QUEUED, State.RUNNING})


def test_cache_hits_are_hollow_and_receipts_show_their_limit(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    text = page(sign_in(alice), "/projects/hello/pipelines/5/?job=build")
    assert 'data-chosen="j1"' in text
    assert text.count('class="tick is-cached"') == 4
    assert "143 MiB of 512 MiB" in text
    assert "4.1 s of 10 min" in text
    assert 'class="limit"' in text


def test_a_step_that_was_killed_says_how(project: Any, alice: Any, sign_in: Any) -> None:
    pipeline = seeding.make_pipeline(project, 1, state=State.FAILED)
    job = seeding.make_test(pipeline, failing=1)
    receipt = seeding.receipt(2.0, 512 * seeding.MIB, outcome="oom", exit_code=137)
    Step.objects.filter(job=job).update(receipt=receipt)
    text = page(sign_in(alice), "/projects/hello/pipelines/1/")
    assert '<span class="tag bad">oom</span>' in text
    assert 'class="gauge hot"' in text


def test_a_receipt_draws_its_memory_with_the_limit_and_tells_of_what_it_waited_for(
    project: Any, alice: Any, sign_in: Any
) -> None:
    pipeline = seeding.make_pipeline(project, 1, state=State.FAILED)
    job = seeding.make_test(pipeline, failing=1)
    samples = [[second, second, second * 10 * seeding.MIB, 4] for second in range(1, 5)]
    receipt = seeding.receipt(
        4.0, 40 * seeding.MIB, samples=samples, throttled=1.26, received_bytes=2048, sent_bytes=1024
    )
    Step.objects.filter(job=job).update(receipt=receipt)
    text = page(sign_in(alice), "/projects/hello/pipelines/1/")
    assert 'class="spark"' in text and "<polyline points=" in text
    assert "the dashed line is the limit" in text
    assert "held back 1.3 s" in text
    assert "in, " in text and " out" in text


def test_the_first_load_stays_small_however_long_the_log(
    project: Any, alice: Any, sign_in: Any
) -> None:
    from django.contrib.staticfiles import finders

    from ciserver.pipelines.logs import LogWriter

    pipeline = seeding.make_pipeline(project, 1)
    for position in range(1, 9):
        job = seeding.make_job(pipeline, position, f"job{position}", JobKind.TEST)
        Step.objects.create(job=job, position=1, text="make", state=State.PASSED, seconds=1)
        with LogWriter(job.log_path) as log:
            for _ in range(100):
                log.write(1, "out", b"\x1b[32m0123456789\x1b[0m 0123456789 0123456789\n" * 100)
    html = sign_in(alice).get("/projects/hello/pipelines/1/").content
    files = [finders.find(f"gantry/{name}") for name in ("gantry.css", "gantry.js", "pipeline.js")]
    total = len(html) + sum(len(open(file, "rb").read()) for file in files)  # noqa: PTH123, SIM115
    assert total <= 150_000
    assert b"Show earlier lines (" in html


def test_earlier_lines_come_in_thousands(project: Any, alice: Any, sign_in: Any) -> None:
    from ciserver.pipelines.logs import LogWriter

    pipeline = seeding.make_pipeline(project, 1)
    job = seeding.make_job(pipeline, 1, "build", JobKind.BUILD)
    with LogWriter(job.log_path) as log:
        log.write(1, "out", b"line\n" * 2500)
    client = sign_in(alice)
    url = "/projects/hello/pipelines/1/jobs/1/log?before="
    text = page(client, f"{url}2500-{job.log_path.stat().st_size}")
    assert text.count("<a href=") == 1000
    assert "Show earlier lines (1500)" in text


@pytest.mark.parametrize("before", ["", "x", "-1-5", "5", "5-99999999", "1e9-2", "5-3"])
def test_a_place_in_a_log_that_is_none_is_refused_kindly(
    hello: Any, alice: Any, sign_in: Any, before: str
) -> None:
    answer = sign_in(alice).get(f"/projects/hello/pipelines/5/jobs/1/log?before={before}")
    assert answer.status_code in {200, 400}


def test_cancelling_asks_for_it_and_twice_is_refused(
    project: Any, alice: Any, bob: Any, sign_in: Any
) -> None:
    seeding.make_pipeline(project, 1, state=State.QUEUED)
    client = sign_in(bob)
    url = "/projects/hello/pipelines/1/cancel/"
    assert client.post(url)["Location"] == "/projects/hello/pipelines/1/"
    assert Pipeline.objects.get(number=1).state == State.CANCELLED
    again = client.post(url)
    assert again.status_code == 409
    assert "Pipeline hello #1 has already ended." in again.content.decode()


# Release


def test_a_release_shows_its_digest_and_evidence(hello: Any, alice: Any, sign_in: Any) -> None:
    release = Release.objects.get(project=hello, number=4)
    text = page(sign_in(alice), release.get_absolute_url())
    assert release.reference in text
    assert "unit passed: 31 passed" in text
    assert (
        "8 steps, 4 from the cache, 5.4 s in sandboxes, 3.8 s of CPU, 143 MiB at the peak" in text
    )
    assert "Promote to prod" in text
    assert "Roll back to v4" in text
    assert "healthy after 0.6 s" in text


def test_a_release_that_ran_nowhere_waits_for_the_place_before(
    project: Any, alice: Any, sign_in: Any
) -> None:
    seeding.make_environments(project, "qa", "prod")
    seeding.make_release(seeding.make_passed(project, 1), 1)
    text = page(sign_in(alice), "/projects/hello/releases/1/")
    assert "Promote to qa" in text
    assert "after qa" in text
    assert "Not put anywhere yet." in text


def test_a_project_without_environments_says_what_to_do(
    project: Any, alice: Any, sign_in: Any
) -> None:
    seeding.make_release(seeding.make_passed(project, 1), 1)
    assert "has no environments yet" in page(sign_in(alice), "/projects/hello/releases/1/")


def test_promoting_shows_what_changes_then_queues_the_same_digest(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    client = sign_in(alice)
    url = "/projects/hello/releases/5/promote/prod/"
    text = page(client, url)
    assert "Promote v5 to prod?" in text
    assert "Show the commit that runs" in text  # v4 comes with it
    assert "Greet by name" not in text  # v3 is there already
    answer = client.post(url, follow=True)
    deployment = Deployment.objects.first()
    assert deployment is not None
    assert (deployment.release.number, deployment.environment.name) == (5, "prod")
    assert deployment.requested_by == "alice"
    assert "v5 is on its way to prod." in answer.content.decode()


def test_a_promotion_past_the_order_is_refused_with_the_next_step(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    release = seeding.make_release(seeding.make_passed(hello, 7), 7)
    answer = sign_in(alice).post(f"{release.get_absolute_url()}promote/prod/")
    text = answer.content.decode()
    assert answer.status_code == 409
    assert "v7 has not run healthy in qa yet." in text
    assert "Promote it there first" in text


def test_rolling_back_says_what_is_lost_then_queues_it(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    client = sign_in(alice)
    url = "/projects/hello/releases/2/roll-back/prod/"
    text = page(client, url)
    assert "Roll prod back to v2?" in text
    assert "What prod loses" in text
    client.post(url)
    deployment = Deployment.objects.first()
    assert deployment is not None
    assert (deployment.kind, deployment.release.number) == ("rollback", 2)


def test_rolling_back_to_what_never_ran_is_refused(hello: Any, alice: Any, sign_in: Any) -> None:
    answer = sign_in(alice).post("/projects/hello/releases/1/roll-back/prod/")
    assert answer.status_code == 409
    assert "v1 never ran healthy in prod" in answer.content.decode()


def test_a_failed_deployment_shows_why_and_on_which_host(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    release = Release.objects.get(project=hello, number=5)
    prod = Environment.objects.get(project=hello, name="prod")
    seeding.deploy(release, prod, state=DeploymentState.FAILED, reason="v5 did not become healthy.")
    client = sign_in(alice)
    text = page(client, release.get_absolute_url())
    assert "v5 did not become healthy." in text
    assert "unhealthy: GET /healthz answered 500" in text
    assert "v5 failed" in page(client, "/")


# Errors


def test_error_pages_name_the_next_step(alice: Any, sign_in: Any, monkeypatch: Any) -> None:
    client = sign_in(alice)
    text = page(client, "/no/such/page", 404)
    assert "There is nothing here" in text
    assert "Go to the overview" in text

    text = _broken(client, monkeypatch).content.decode()
    assert "Something broke on our side" in text
    assert "secret detail" not in text


def _broken(client: Client, monkeypatch: Any) -> Any:
    """What is answered when the overview raises."""

    def broken(user: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(views, "matrix_for", broken)
    answer = client.get("/")
    assert answer.status_code == 500
    return answer


def test_a_host_name_that_is_not_ours_is_a_page_too(db: None) -> None:
    answer = Client().get("/login/", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert "This request cannot be understood" in answer.content.decode()


def test_no_page_carries_inline_script_or_style(
    hello: Any, alice: Any, sign_in: Any, monkeypatch: Any
) -> None:
    """Pages of every kind; test_looks compares the policy of each."""
    client = sign_in(alice)
    urls = ["/", "/projects/hello/", "/projects/hello/pipelines/6/", "/projects/hello/releases/4/"]
    urls += ["/new-project/", "/no/such/page", "/login/", "/projects/hello/start/"]
    answers = [client.get(url, follow=True) for url in urls]
    answers += [client.get("/", headers={"Host": "evil.example"}), _broken(client, monkeypatch)]
    answers += [Client(enforce_csrf_checks=True).post("/login/")]
    assert [answer.status_code for answer in answers[-6:]] == [404, 200, 400, 400, 500, 403]
    for answer in answers:
        text = answer.content.decode()
        assert "style=" not in text
        assert "<style" not in text
        assert " onclick" not in text
        assert "<script>" not in text
        assert answer["Content-Security-Policy"] == POLICY


def test_old_times_are_dates(hello: Any) -> None:
    from ciserver.lib.words import ago, duration, size

    now = timezone.now()
    assert ago(now) == "just now"
    assert ago(now - timedelta(minutes=5)) == "5 min ago"
    assert ago(now - timedelta(hours=3)) == "3 h ago"
    assert ago(now - timedelta(days=3)) == "3 d ago"
    assert ago(now - timedelta(days=90)).endswith(str((now - timedelta(days=90)).year))
    assert [duration(value) for value in (None, 0.0123, 1.24, 61, 3723)] == [
        "\u2013", "12 ms", "1.2 s", "1 min 01 s", "1 h 02 min",
    ]  # fmt: skip
    assert [size(value) for value in (None, 0, 999, 1536, 5 * 1024**3)] == [
        "\u2013", "0 B", "999 B", "1.5 KiB", "5.0 GiB",
    ]  # fmt: skip
