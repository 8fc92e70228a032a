"""Pull requests of every forge: a fork's wait for the approval of that very commit."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from ciserver.accounts.models import AuditEntry
from ciserver.lib.models import OutboxEntry
from ciserver.lib.problems import Refused
from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.starting import head_of
from ciserver.repositories.git import create_hosted
from ciserver.webhooks.models import Delivery, PullRequest
from ciserver.webhooks.tasks import plan
from tests.ciserver.repositories.serving import commit, git
from tests.ciserver.webhooks.conftest import push
from tests.conftest import api_as

SHA = "a" * 40
HOME, FORK = 101, 202  # a forge's ids of the project's repository and of a fork


def github(sha: str = SHA, *, home: Any = FORK, action: str = "opened", **more: Any) -> Any:
    head = {"ref": "topic", "sha": sha, "repo": {"id": home} if home else None}
    base = {"ref": "main", "sha": "b" * 40, "repo": {"id": HOME}}
    pull = {"title": "Say more", "head": head, "base": base, **more}
    return {"action": action, "number": 7, "pull_request": pull, "sender": {"login": "mallory"}}


def gitlab(sha: str, home: Any) -> Any:
    attributes = {
        "iid": 7, "action": "open", "title": "Say more", "source_branch": "topic",
        "target_branch": "main", "source_project_id": home, "target_project_id": HOME,
        "last_commit": {"id": sha},
    }  # fmt: skip
    return {"user": {"username": "mallory"}, "object_attributes": attributes}


def cloud(sha: str, home: Any) -> Any:
    def side(name: str, sha: str, home: Any) -> Any:
        repository = {"uuid": f"{{{home}}}"} if home else None
        return {"branch": {"name": name}, "commit": {"hash": sha[:12]}, "repository": repository}

    pull = {"id": 7, "title": "Say more", "source": side("topic", sha, home)}
    pull["destination"] = side("main", "b" * 40, HOME)
    return {"actor": {"display_name": "mallory"}, "pullrequest": pull}


def data_center(sha: str, home: Any) -> Any:
    def side(name: str, sha: str, home: Any) -> Any:
        where = {"id": home} if home else None
        return {"id": f"refs/heads/{name}", "latestCommit": sha, "repository": where}

    pull = {"id": 7, "title": "Say more", "fromRef": side("topic", sha, home)}
    pull["toRef"] = side("main", "b" * 40, HOME)
    return {"actor": {"name": "mallory"}, "pullRequest": pull}


def generic(sha: str, home: Any) -> Any:
    return {
        "number": 7, "sha": sha, "head": "refs/heads/topic", "base": "refs/heads/main",
        "ref": "refs/pull/7/head", "head_repository": home, "base_repository": HOME,
        "title": "Say more", "sender": "mallory",
    }  # fmt: skip


def _as_github(sha: str, home: Any) -> Any:
    return github(sha, home=home)


# Forge: its headers, where the signature goes, what stands before it, the body, the ref.
FORGES: dict[str, Any] = {
    "github": (
        {"X-GitHub-Event": "pull_request", "X-GitHub-Delivery": "1"},
        "X-Hub-Signature-256", "sha256=", _as_github, "refs/pull/7/head",
    ),
    "gitlab": (
        {"X-Gitlab-Event": "Merge Request Hook", "Idempotency-Key": "1"},
        "X-Gitlab-Token", None, gitlab, "refs/merge-requests/7/head",
    ),
    "gitea": (
        {"X-Gitea-Event": "pull_request", "X-Gitea-Delivery": "1"},
        "X-Gitea-Signature", "", _as_github, "refs/pull/7/head",
    ),
    "forgejo": (
        {"X-Forgejo-Event": "pull_request", "X-Forgejo-Delivery": "1"},
        "X-Forgejo-Signature", "", _as_github, "refs/pull/7/head",
    ),
    "bitbucket": (
        {"X-Event-Key": "pullrequest:created", "X-Request-UUID": "1"},
        "X-Hub-Signature", "sha256=", cloud, "",
    ),
    "bitbucket-server": (
        {"X-Event-Key": "pr:opened", "X-Request-Id": "1"},
        "X-Hub-Signature", "sha256=", data_center, "refs/pull-requests/7/from",
    ),
    "generic": (
        {"X-Gantry-Event": "pull_request", "X-Gantry-Delivery": "1"},
        "X-Gantry-Signature", "sha256=", generic, "refs/pull/7/head",
    ),
}  # fmt: skip


@pytest.fixture
def secret(project: Any) -> str:
    return str(project.renew_hook_secret().reveal())


@pytest.fixture
def repository(project: Any) -> Path:
    return create_hosted(project)


def tell(forge: str, secret: str, body: Any, delivery: str = "1") -> Any:
    headers, name, prefix, *_ = FORGES[forge]
    raw = json.dumps(body).encode()
    mac = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    signed = {name: secret if prefix is None else prefix + mac}
    ids = {key: delivery for key, value in headers.items() if value == "1"}
    client = Client(raise_request_exception=False)
    return client.post(
        f"/hooks/{forge}/hello/", raw, "application/json", headers=headers | ids | signed
    )


def approve(api: Any, sha: str) -> Any:
    row = PullRequest.objects.get()
    return api.post(f"/api/v1/pull-requests/{row.pk}/approve/", {"sha": sha}, format="json")


def plan_all() -> None:
    for entry in OutboxEntry.objects.filter(topic="delivery.accepted"):
        plan(entry.object_id)


@pytest.mark.parametrize("home", [FORK, None, 0, "", True, [HOME], {"id": HOME}, str(HOME) + " "])
@pytest.mark.parametrize("forge", FORGES)
def test_whatever_is_not_the_same_repository_by_id_is_a_fork_and_starts_nothing(
    forge: str, secret: str, home: Any
) -> None:
    body = FORGES[forge][3](SHA, home)
    assert tell(forge, secret, body).status_code == 200
    row, delivery = PullRequest.objects.get(), Delivery.objects.get()
    assert (row.number, row.sender, row.title) == (7, "mallory", "Say more")
    assert row.from_fork
    assert row.ref == FORGES[forge][4]
    assert delivery.verdict == ("waiting" if row.ref else "ignored")
    assert not OutboxEntry.objects.exists()
    assert not Pipeline.objects.exists()


@pytest.mark.parametrize("forge", [forge for forge in FORGES if forge != "bitbucket"])
def test_one_of_the_projects_own_repository_is_the_push_of_its_branch(
    forge: str, secret: str, repository: Path, tmp_path: Path
) -> None:
    sha = commit(tmp_path, {"a": "1"})
    git("push", str(repository), "main:topic", cwd=tmp_path)

    assert tell(forge, secret, FORGES[forge][3](sha, HOME)).status_code == 202
    plan_all()

    made = Pipeline.objects.get()
    assert (made.ref, made.event, made.pull_request) == ("refs/heads/topic", "push", 7)
    assert (made.from_fork, made.lane) == (False, "unprotected")


def test_push_and_pull_request_of_a_branch_are_built_once_in_either_order(
    post: Any, repository: Path, tmp_path: Path
) -> None:
    for name, order in (("one", (push, github)), ("two", (github, push))):
        sha = commit(tmp_path, {"a": name})
        git("push", str(repository), "main:topic", cwd=tmp_path)
        for number, told in enumerate(order):
            pull = told is github
            body = github(sha, home=HOME) if pull else push("refs/heads/topic", sha)
            event = "pull_request" if pull else "push"
            assert post(body, event=event, delivery=f"{name}-{number}").status_code in {200, 202}
            plan_all()
        assert Pipeline.objects.get(commit=sha).pull_request == 7
    assert Pipeline.objects.count() == 2


def test_a_bare_commit_of_a_fork_told_as_the_projects_own_branch_is_not_built(
    post: Any, repository: Path, tmp_path: Path
) -> None:
    """Travis, 2016: same repository, but the head is a commit id that only the fork has."""
    sha = commit(tmp_path, {"a": "evil"})
    git("push", str(repository), "main:refs/pull/7/head", cwd=tmp_path)
    body = github(sha, home=HOME)
    body["pull_request"]["head"]["ref"] = sha
    assert post(body, event="pull_request").status_code == 202
    plan_all()
    assert not Pipeline.objects.exists()
    assert Delivery.objects.get().verdict == "stale"


@pytest.mark.parametrize("forge", [forge for forge in FORGES if FORGES[forge][4]])
def test_an_approved_commit_of_a_fork_is_built_as_one(
    forge: str, secret: str, api: Any, repository: Path, tmp_path: Path
) -> None:
    sha = commit(tmp_path, {"a": "1"}, GIT_AUTHOR_NAME="alice")
    ref = FORGES[forge][4]
    git("push", str(repository), f"main:{ref}", cwd=tmp_path)
    tell(forge, secret, FORGES[forge][3](sha, FORK))

    assert approve(api, sha).status_code == 200
    plan_all()

    made = Pipeline.objects.get()
    assert (made.commit, made.ref, made.event) == (sha, ref, "pull_request")
    assert (made.from_fork, made.protected, made.lane) == (True, False, "fork-7")
    entry = AuditEntry.objects.get(action="pull-request.approve")
    assert (entry.actor, entry.detail) == ("alice", {"sha": sha})
    assert api.get("/api/v1/pull-requests/").json()["results"][0]["pipeline"] == made.number


def test_a_new_push_to_the_fork_needs_a_new_approval(
    secret: str, api: Any, repository: Path, tmp_path: Path
) -> None:
    first = commit(tmp_path, {"a": "1"})
    git("push", str(repository), "main:refs/pull/7/head", cwd=tmp_path)
    tell("github", secret, github(first))
    approve(api, first)
    plan_all()
    second = commit(tmp_path, {"a": "2"})
    git("push", str(repository), "main:refs/pull/7/head", cwd=tmp_path)

    tell("github", secret, github(second, action="synchronize"), "2")
    plan_all()
    assert [made.commit for made in Pipeline.objects.all()] == [first]
    assert approve(api, first).status_code == 409

    assert approve(api, second).status_code == 200
    plan_all()
    assert {made.commit for made in Pipeline.objects.all()} == {first, second}


def test_an_old_delivery_of_a_pull_request_is_stale_and_changes_nothing(
    secret: str, api: Any, repository: Path, tmp_path: Path
) -> None:
    old = commit(tmp_path, {"a": "1"})
    tell("github", secret, github(old), "1")
    new = commit(tmp_path, {"a": "2"})
    git("push", str(repository), "main:refs/pull/7/head", cwd=tmp_path)
    tell("github", secret, github(new, action="synchronize"), "2")

    assert tell("github", secret, github(old), "months later").status_code == 200

    replayed = Delivery.objects.get(delivery_id="months later")
    assert replayed.verdict == "stale"
    assert f"is told to be at {new[:12]} since" in replayed.detail
    row = PullRequest.objects.get()
    assert (row.sha, row.waits) == (new, True)
    assert Delivery.objects.get(verdict="waiting").sha == new
    assert approve(api, old).status_code == 409
    approve(api, new)
    plan_all()
    assert [pipeline.commit for pipeline in Pipeline.objects.all()] == [new]


def test_a_commit_that_moved_before_it_was_fetched_is_not_built_and_the_new_one_waits(
    secret: str, api: Any, repository: Path, tmp_path: Path
) -> None:
    first = commit(tmp_path, {"a": "1"})
    tell("github", secret, github(first))
    second = commit(tmp_path, {"a": "2"})
    git("push", str(repository), "main:refs/pull/7/head", cwd=tmp_path)

    assert approve(api, first).status_code == 200
    plan_all()

    assert not Pipeline.objects.exists()
    waiting = Delivery.objects.get(verdict="waiting")
    assert (waiting.sha, PullRequest.objects.get().waits) == (second, True)
    assert approve(api, second).status_code == 200
    plan_all()
    assert Pipeline.objects.get().commit == second


def test_only_a_maintainer_approves(secret: str, bob: Any, charlie: Any) -> None:
    tell("github", secret, github())
    assert approve(api_as(bob), SHA).status_code == 403
    assert approve(api_as(charlie), SHA).status_code == 404
    assert not OutboxEntry.objects.exists()


def test_what_is_closed_or_no_fork_is_not_approved(secret: str, api: Any) -> None:
    tell("github", secret, github())
    tell("github", secret, github(action="closed"), "2")
    assert approve(api, SHA).status_code == 409
    assert not Delivery.objects.filter(verdict="waiting").exists()
    tell("github", secret, github(home=HOME, action="reopened"), "3")
    assert approve(api, SHA).status_code == 409


def test_the_same_commit_told_again_waits_once(secret: str) -> None:
    tell("github", secret, github())
    tell("github", secret, github(action="synchronize"), "2")
    assert sorted(d.verdict for d in Delivery.objects.all()) == ["duplicate", "waiting"]


@pytest.mark.parametrize("action", ["labeled", "edited", "review_requested", "assigned"])
def test_what_brings_no_commit_is_recorded_and_starts_nothing(secret: str, action: str) -> None:
    assert tell("github", secret, github(home=HOME, action=action)).status_code == 200
    assert Delivery.objects.get().verdict == "ignored"


@pytest.mark.parametrize(
    "change", [{"number": 0}, {"number": True}, {"number": "7"}, {"ref": "refs/heads/main"}]
)
def test_a_wrong_shape_is_a_400_or_builds_nothing(secret: str, change: dict[str, Any]) -> None:
    assert tell("generic", secret, generic(SHA, FORK) | change).status_code in {200, 400}
    assert not OutboxEntry.objects.exists()


def test_a_fork_that_asks_not_to_be_built_is_not(
    secret: str, api: Any, repository: Path, tmp_path: Path
) -> None:
    sha = commit(tmp_path, {"a": "1"}, "Typo [skip ci]")
    git("push", str(repository), "main:refs/pull/7/head", cwd=tmp_path)
    tell("github", secret, github(sha))
    approve(api, sha)
    plan_all()
    assert not Pipeline.objects.exists()
    assert "[skip ci]" in Delivery.objects.get().detail


def test_a_maintainer_approves_on_the_page_what_the_page_shows(
    secret: str, alice: Any, bob: Any
) -> None:
    tell("github", secret, github(title="<b>Say more</b>"))
    client = Client()
    client.force_login(bob)
    assert b"Approve" not in client.get("/projects/hello/").content
    client.force_login(alice)
    page = client.get("/projects/hello/").content.decode()
    assert "&lt;b&gt;Say more&lt;/b&gt;" in page
    assert "waiting for approval" in page
    row = PullRequest.objects.get()
    where = f"/projects/hello/pulls/{row.pk}/approve/"
    assert client.post(where, {"sha": "b" * 40}).status_code == 409
    assert client.post(where, {"sha": SHA}).status_code == 302
    assert OutboxEntry.objects.filter(topic="delivery.accepted").count() == 1


def test_a_forks_commit_cannot_be_started_by_hand_as_the_projects_own(
    repository: Path, project: Any, tmp_path: Path
) -> None:
    commit(tmp_path, {"Dockerfile": "FROM scratch\n"})
    git("push", str(repository), "main:refs/pull/7/head", cwd=tmp_path)
    for name in ("refs/pull/7/head", "pull/7/head"):
        with pytest.raises(Refused, match="no branch or tag"):
            head_of(project, name)
