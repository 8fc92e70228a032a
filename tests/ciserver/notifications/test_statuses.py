"""Commit statuses: each forge's own words, sent to stubs of their APIs over real HTTP."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.utils import timezone

from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.notifications import sending, services
from ciserver.notifications.forges import FORGES
from ciserver.notifications.models import CommitStatus, StatusTarget
from ciserver.notifications.sending import judge
from ciserver.pipelines import services as pipelines
from ciserver.pipelines.models import Pipeline, State
from ciserver.pipelines.statuses import tell_forges
from tests.ciserver.repositories.serving import loopback_is_outside
from tests.conftest import api_as

__all__ = ["loopback_is_outside"]
pytestmark = pytest.mark.usefixtures("loopback_is_outside", "no_worker")
SHA = "a" * 40
TOKEN = "glpat-very-secret"


class Stub:
    """A forge's API: checks what its documentation asks for, and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []  # of the next requests; 201 without
        self.body: bytes | None = None  # of answers
        self.asked: dict[str, str] = {}
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                stub.asked = dict(self.headers)
                status, headers = stub.answers.pop(0) if stub.answers else (0, {})
                status = status or check(self.path, dict(self.headers), body)
                if status < 300:
                    stub.told.append(body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if status != 204:
                    said = f"{status} for {TOKEN}".encode() if stub.body is None else stub.body
                    with suppress(OSError):  # not all is read
                        self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"


# Path, header of the token, its value, fields that must be there, states, the answer.
APIS: dict[str, tuple[str, str, str, set[str], set[str], int]] = {
    "github": (
        rf"/repos/team/hello/statuses/{SHA}", "Authorization", f"Bearer {TOKEN}",
        {"state", "target_url", "description", "context"},
        {"pending", "success", "failure", "error"}, 201,
    ),
    "gitlab": (
        rf"/projects/team%2Fhello/statuses/{SHA}", "PRIVATE-TOKEN", TOKEN,
        {"state", "target_url", "description", "name"},
        {"pending", "running", "success", "failed", "canceled"}, 201,
    ),
    "gitea": (
        rf"/api/v1/repos/team/hello/statuses/{SHA}", "Authorization", f"token {TOKEN}",
        {"state", "target_url", "description", "context"},
        {"pending", "success", "error", "failure", "warning"}, 201,
    ),
    "bitbucket": (
        rf"/repositories/team/hello/commit/{SHA}/statuses/build", "Authorization",
        f"Bearer {TOKEN}", {"key", "state", "url", "name", "description"},
        {"INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"}, 201,
    ),
    "bitbucket-server": (
        rf"/rest/api/latest/projects/team/repos/hello/commits/{SHA}/builds", "Authorization",
        f"Bearer {TOKEN}", {"key", "state", "url", "name", "description"},
        {"CANCELLED", "FAILED", "INPROGRESS", "SUCCESSFUL", "UNKNOWN"}, 204,
    ),
}  # fmt: skip
BASES = {"gitea": "/api/v1", "forgejo": "/api/v1"}


def check(path: str, headers: dict[str, str], body: dict[str, Any]) -> int:
    """The forge's status code for a request; 404, 401 or 422 for one it would not take."""
    for where, name, value, fields, states, status in APIS.values():
        if (
            re.fullmatch(where, path)
            and {k.lower(): v for k, v in headers.items()}.get(name.lower()) == value
        ):
            good = set(body) == fields and body["state"] in states
            return status if good and len(body["description"]) <= 140 else 422
    return 404


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.http.shutdown()
    stub.http.server_close()


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers are woken for is done at once."""
    monkeypatch.setattr(services.app, "send_task", lambda _, args, **__: services.deliver(*args))


@pytest.fixture
def target(stub: Stub, project: Any, alice: Any) -> StatusTarget:
    return tell(project, alice, stub)


def tell(project: Any, user: Any, stub: Stub, forge: str = "github") -> StatusTarget:
    return services.set_target(
        project=project, user=user, forge=forge, repository="team/hello",
        api_url=stub.url + BASES.get(forge, ""), token=Secret(TOKEN),
    )  # fmt: skip


def begin(project: Any) -> Pipeline:
    return pipelines.queue(project=project, commit=SHA, ref="refs/heads/main")


def end(pipeline: Pipeline, state: State, reason: str = "") -> None:
    Pipeline.objects.filter(pk=pipeline.pk).update(state=state, reason=reason)


def due_now() -> None:
    CommitStatus.objects.exclude(next_at=None).update(next_at=timezone.now())


@pytest.mark.parametrize("forge", FORGES)
def test_every_forge_is_told_in_its_own_words(
    forge: str, stub: Stub, project: Any, alice: Any
) -> None:
    tell(project, alice, stub, forge)
    pipeline = begin(project)
    for state in (State.QUEUED, State.RUNNING, State.PASSED, State.FAILED, State.CANCELLED):
        end(pipeline, state, "x" * 500)
        tell_forges()
    row = CommitStatus.objects.get()
    assert (row.error, row.sent) == ("", "cancelled")
    assert len(stub.told) == 5
    url = stub.told[0].get("target_url") or stub.told[0]["url"]
    assert url == f"{django_settings.GANTRY.url}/projects/hello/pipelines/1/"


def test_what_the_forge_knows_is_not_told_again(
    stub: Stub, target: StatusTarget, project: Any
) -> None:
    begin(project)
    for _ in range(3):
        tell_forges()
    assert len(stub.told) == 1


def test_pipelines_from_before_are_not_told(stub: Stub, project: Any, alice: Any) -> None:
    begin(project)
    tell(project, alice, stub)
    tell_forges()
    assert stub.told == []


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_a_forge_in_trouble_is_asked_again_with_longer_pauses(
    status: int, stub: Stub, target: StatusTarget, project: Any
) -> None:
    begin(project)
    stub.answers = [(status, {})] * 2
    pauses = []
    for _ in range(2):
        tell_forges()
        row = CommitStatus.objects.get()
        assert row.next_at is not None
        pauses.append((row.next_at - timezone.now()).total_seconds())
        assert str(status) in row.error
        due_now()
    assert 8 < pauses[0] < 11 < 18 < pauses[1] < 21
    tell_forges()
    assert (CommitStatus.objects.get().error, len(stub.told)) == ("", 1)


@pytest.mark.parametrize(
    "headers",
    [
        lambda _: {"Retry-After": "120"},
        lambda at: {"Retry-After": formatdate(at, usegmt=True)},
        lambda at: {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(at))},
        lambda at: {"RateLimit-Remaining": "0", "RateLimit-Reset": str(int(at))},
    ],
)
@pytest.mark.parametrize("status", [403, 429])
def test_a_rate_limit_holds_all_that_would_go_there(
    status: int,
    headers: Callable[[float], dict[str, str]],
    stub: Stub,
    target: StatusTarget,
    project: Any,
) -> None:
    begin(project)
    stub.answers = [(status, headers(time.time() + 120))]
    tell_forges()
    target.refresh_from_db()
    assert target.paused_until is not None
    assert timedelta(seconds=30) < target.paused_until - timezone.now() <= timedelta(seconds=121)
    assert CommitStatus.objects.get().attempts == 0
    due_now()
    begin(project)
    tell_forges()
    assert stub.told == []
    StatusTarget.objects.update(paused_until=None)
    tell_forges()
    assert len(stub.told) == 2


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 422])
def test_a_clear_refusal_is_shown_without_the_token_and_not_repeated(
    status: int, stub: Stub, target: StatusTarget, project: Any, alice: Any
) -> None:
    begin(project)
    stub.answers = [(status, {"Location": "http://127.0.0.1:1/"})]
    tell_forges()
    row = CommitStatus.objects.get()
    assert (row.next_at, stub.told) == (None, [])
    client = Client()
    client.force_login(alice)
    page = client.get("/projects/hello/statuses/").content.decode()
    assert f"The forge answered {status}" in page
    assert TOKEN not in page


@pytest.mark.parametrize("status", [500, 503, 408])
def test_a_forge_in_trouble_that_names_a_time_has_it_but_no_more_attempts(
    status: int, stub: Stub, target: StatusTarget, project: Any
) -> None:
    begin(project)
    stub.answers = [(status, {"Retry-After": "120"})] * services.MOST_ATTEMPTS
    for tried in range(1, services.MOST_ATTEMPTS + 1):
        tell_forges()
        row = CommitStatus.objects.get()
        assert row.attempts == tried
        if row.next_at:
            assert (row.next_at - timezone.now()).total_seconds() > 110
        due_now()
        StatusTarget.objects.update(paused_until=None)
    assert row.next_at is None, "given up"
    assert stub.told == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "9" * 400},
        {"Retry-After": "Fri, 31 Dec 9999999999 23:59:59 GMT"},
        {"Retry-After": "Mon, 01 Jan 2029 00:00:00 +" + "9" * 30},
        {"Retry-After": "-1"},
        {"Retry-After": "soon"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9" * 400},
    ],
)
def test_no_time_that_a_forge_names_is_too_odd(headers: dict[str, str]) -> None:
    outcome = judge(429, headers, "slow down")
    assert outcome.error.endswith("slow down")
    assert outcome.wait is None or timedelta(seconds=1) <= outcome.wait <= sending.LONGEST


def test_of_a_long_answer_little_is_read(stub: Stub, target: StatusTarget, project: Any) -> None:
    """And none of the token, which it repeats where it is cut."""
    stub.body = b" " * (sending.MOST_READ - len(TOKEN) // 2) + TOKEN.encode() + b"x" * 10**8
    stub.answers = [(404, {})]
    begin(project)
    began = time.monotonic()
    tell_forges()
    assert time.monotonic() - began < 5
    assert stub.asked["Accept-Encoding"] == "identity"
    error = CommitStatus.objects.get().error
    assert error.startswith("The forge answered 404: ")
    assert TOKEN[:5] not in error


def test_an_answer_that_is_packed_all_the_same_is_not_unpacked(
    stub: Stub, target: StatusTarget, project: Any
) -> None:
    stub.body = gzip.compress(b"0" * 10**6)
    stub.answers = [(404, {"Content-Encoding": "gzip"})]
    begin(project)
    tell_forges()
    assert "000" not in CommitStatus.objects.get().error


def test_a_row_can_hold_any_answer(stub: Stub, target: StatusTarget, project: Any) -> None:
    half = len(TOKEN) // 2
    stub.body = f"no\0 way {TOKEN[:half]}\0{TOKEN[half:]}\x1b \ud800".encode(errors="surrogatepass")
    stub.answers = [(404, {})]
    begin(project)
    tell_forges()
    error = CommitStatus.objects.get().error
    assert error.startswith("The forge answered 404: no way ***")
    assert "\0" not in error


def test_a_forge_that_dribbles_its_answer_has_no_longer_than_the_whole_time(
    project: Any, alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "IN_ALL", 0.5)
    stop = Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def dribble() -> None:
            client, _ = server.accept()
            with client, suppress(OSError):
                client.sendall(b"HTTP/1.1 201 Created\r\nX: ")
                while not stop.wait(0.05):
                    client.sendall(b"x")

        thread = Thread(target=dribble)
        thread.start()
        services.set_target(
            project=project, user=alice, forge="github", repository="team/hello",
            api_url=f"http://127.0.0.1:{server.getsockname()[1]}", token=Secret(TOKEN),
        )  # fmt: skip
        begin(project)
        began = time.monotonic()
        tell_forges()
        taken = time.monotonic() - began
        stop.set()
        thread.join()
    row = CommitStatus.objects.get()
    assert (row.error, row.attempts) == ("The forge did not answer within 0.5 s.", 1)
    assert taken < 3


def test_an_error_that_nobody_thought_of_counts_as_an_attempt(
    stub: Stub, target: StatusTarget, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OverflowError("cannot convert")

    monkeypatch.setattr(services, "send", broken)
    begin(project)
    for tried in range(1, services.MOST_ATTEMPTS + 1):
        tell_forges()
        row = CommitStatus.objects.get()
        assert (row.attempts, row.next_at is None) == (tried, tried == services.MOST_ATTEMPTS)
        due_now()
    assert row.error == "Gantry could not send it (OverflowError): see the worker's log."


def test_a_forge_that_is_away_does_not_hold_up_a_pipeline(
    stub: Stub, target: StatusTarget, project: Any
) -> None:
    StatusTarget.objects.update(api_url="http://127.0.0.1:1")
    pipeline = begin(project)
    tell_forges()
    assert "did not answer" in CommitStatus.objects.get().error
    pipeline.refresh_from_db()
    assert pipeline.state == State.QUEUED


def test_a_newer_state_is_told_though_the_older_was_given_up(
    stub: Stub, target: StatusTarget, project: Any
) -> None:
    pipeline = begin(project)
    stub.answers = [(404, {})]
    tell_forges()
    end(pipeline, State.PASSED)
    tell_forges()
    assert [body["state"] for body in stub.told] == ["success"]


def test_a_state_that_changed_while_it_was_sent_is_told_once_more(
    stub: Stub, target: StatusTarget, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, send = begin(project), services._send

    def slowly(row: CommitStatus, target: StatusTarget) -> Any:
        outcome = send(row, target)
        if row.state == "pending":
            end(pipeline, State.PASSED)
            tell_forges()
        return outcome

    monkeypatch.setattr(services, "_send", slowly)
    tell_forges()
    due_now()
    tell_forges()
    assert [body["state"] for body in stub.told][-1] == "success"
    assert CommitStatus.objects.get().sent == "success"


def test_gitlabs_word_for_being_told_already_is_no_error() -> None:
    said = '{"message":"Cannot transition status via :run from :running"}'
    assert judge(400, {}, said).error == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("forge", "generic"),
        ("api_url", "http://169.254.169.254/api"),
        ("api_url", "http://10.0.0.1/api"),
        ("api_url", "file:///etc/passwd"),
        ("api_url", "https://token@github.example"),
        ("repository", "team/../../admin"),
        ("repository", "team/hello?x"),
        ("token", "a\r\nX-Evil: 1"),
        ("token", " "),
        ("token", "schl\u00fcssel"),
    ],
)
def test_what_cannot_be_told_is_refused_by_field(
    project: Any, alice: Any, field: str, value: str
) -> None:
    given: dict[str, Any] = {
        "forge": "github", "api_url": "", "repository": "team/hello", "token": TOKEN,
    } | {field: value}  # fmt: skip
    given["token"] = Secret(given["token"])
    with pytest.raises(Refused) as refusal:
        services.set_target(project=project, user=alice, **given)
    assert refusal.value.code == f"statuses.{field}"


def test_it_is_set_shown_and_removed_over_the_api_by_maintainers(
    stub: Stub, project: Any, api: Any, bob: Any
) -> None:
    url = "/api/v1/projects/hello/statuses/"
    assert api.get(url).status_code == 404
    body = {"forge": "gitea", "repository": "t/h", "api_url": stub.url, "token": TOKEN}
    assert api_as(bob).put(url, body, format="json").status_code == 403
    assert TOKEN not in api.put(url, body, format="json").content.decode()
    row = StatusTarget.objects.get()
    assert TOKEN not in row.token_sealed
    begin(project)
    tell_forges()
    (status,) = api.get(url).json()["statuses"]
    assert status["error"].startswith("The forge answered 404")
    assert api.delete(url).status_code == 204
    assert not StatusTarget.objects.exists()


def test_it_has_a_page(stub: Stub, project: Any, alice: Any) -> None:
    client = Client()
    client.force_login(alice)
    page = "/projects/hello/statuses/"
    body = {"forge": "github", "repository": "t/h", "api_url": stub.url, "token": TOKEN}
    assert client.post(page, body).status_code == 302
    assert TOKEN not in client.get(page).content.decode()
    assert client.post(page, body | {"repository": "../x"}).status_code == 400
    assert client.post(f"{page}remove/").status_code == 302
    assert not StatusTarget.objects.exists()
