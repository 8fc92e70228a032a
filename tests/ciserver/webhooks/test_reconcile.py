"""A head that no webhook told of is found and built once, whatever the webhook does later."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from kombu.exceptions import OperationalError

from ciserver.lib.models import OutboxEntry
from ciserver.pipelines.models import Pipeline
from ciserver.projects.models import Membership, Project, Role
from ciserver.repositories.git import ls_remote
from ciserver.webhooks import reconcile
from ciserver.webhooks.approvals import approve
from ciserver.webhooks.forges.events import Envelope, PullRequest, Push
from ciserver.webhooks.models import Delivery, Poll
from ciserver.webhooks.models import PullRequest as PullRow
from ciserver.webhooks.services import receive
from ciserver.webhooks.tasks import look, plan
from tests.ciserver.repositories.serving import commit, git
from tests.ciserver.repositories.test_fetch import forge, outside, upstream

__all__ = ["forge", "outside", "upstream"]
pytestmark = pytest.mark.usefixtures("loopback_is_outside", "db")
MAIN = "refs/heads/main"


class Outside:
    def __init__(self, project: Project, upstream: Path, work: Path) -> None:
        self.project, self.upstream, self.work = project, upstream, work
        self.pushed = 0

    def push(self, branch: str = "main") -> str:
        self.pushed += 1
        sha = commit(self.work, {"a": str(self.pushed)})
        git("push", str(self.upstream), f"HEAD:{branch}", cwd=self.work)
        return sha

    def tell(self, sha: str, delivery: str = "hook") -> str:
        found, _ = receive(
            project=self.project, forge="github", envelope=Envelope("push", delivery),
            events=[Push(MAIN, sha)], headers={}, body=b"",
        )  # fmt: skip
        return found.verdict

    def look(self) -> None:
        look(self.project.pk)

    def plan(self) -> None:
        for entry in OutboxEntry.objects.filter(topic="delivery.accepted"):
            plan(entry.object_id)

    @property
    def built(self) -> list[str]:
        return [pipeline.commit for pipeline in Pipeline.objects.order_by("id")]


def test_a_push_of_more_refs_than_one_look_takes_is_found_by_looks_that_follow_at_once(
    away: Outside,
) -> None:
    refs = [f"HEAD:refs/heads/b{number}" for number in range(45)]
    git("push", str(away.upstream), *refs, cwd=away.work)
    looks = 0
    while looks == 0 or Poll.objects.get().next_at <= timezone.now():
        Poll.objects.update(next_at=timezone.now() + timedelta(minutes=5))  # as the scheduler does
        away.look()
        looks += 1

    assert looks == 3
    assert Delivery.objects.filter(verdict="accepted").count() == 45


@pytest.fixture
def away(outside: Project, upstream: Path, tmp_path: Path) -> Outside:
    """An outside repository with one commit that a first look has seen."""
    there = Outside(outside, upstream, tmp_path)
    there.push()
    Poll.objects.create(project=outside, next_at=timezone.now())
    there.look()
    return there


def test_another_address_is_only_remembered_at_first(away: Outside) -> None:
    away.push()
    Poll.objects.update(address="https://elsewhere.example/hello.git")
    away.look()
    assert Delivery.objects.count() == 0
    assert Poll.objects.get().address == away.project.clone_url
    away.push()
    away.look()
    assert Delivery.objects.count() == 1


def test_the_first_look_builds_nothing(away: Outside) -> None:
    assert not Delivery.objects.exists()
    assert list(Poll.objects.get().heads or {}) == [MAIN]


def test_a_push_that_nobody_told_of_is_built_once(away: Outside) -> None:
    sha = away.push()
    for _ in range(3):
        away.look()
        away.plan()

    assert away.built == [sha]
    assert Delivery.objects.get().forge == "poll"


def test_a_tag_that_nobody_told_of_is_built_once_at_its_commit(away: Outside) -> None:
    git("tag", "--annotate", "-m", "One", "v1", cwd=away.work)
    git("push", str(away.upstream), "v1", cwd=away.work)
    for _ in range(2):
        away.look()
        away.plan()
    assert [made.ref for made in Pipeline.objects.all()] == ["refs/tags/v1"]
    assert away.built == [git("rev-parse", "v1^{commit}", cwd=away.work)]


def test_the_webhook_that_comes_late_is_a_duplicate(away: Outside) -> None:
    sha = away.push()
    away.look()

    assert away.tell(sha) == "duplicate"
    away.plan()
    assert away.tell(sha, "again") == "duplicate"
    assert away.built == [sha]


def test_what_a_webhook_told_is_not_found_again(away: Outside) -> None:
    away.tell(away.push())
    away.look()
    away.plan()

    assert len(away.built) == Delivery.objects.count() == 1


def test_a_branch_that_went_back_untold_is_built_again(away: Outside) -> None:
    first = away.push()
    away.tell(first, "1")
    away.plan()
    away.tell(away.push(), "2")
    away.look()
    away.plan()
    git("push", "--force", str(away.upstream), f"{first}:main", cwd=away.work)

    away.look()
    away.plan()

    assert away.built[0] == away.built[2] == first


def opened(away: Outside, number: int, *, branch: str = "fork") -> str:
    """A commit that is on no branch of the project, where GitHub keeps those of pull requests."""
    away.pushed += 1
    sha = commit(away.work, {"a": f"{branch} {away.pushed}"})
    git("push", "--force", str(away.upstream), f"HEAD:refs/pull/{number}/head", cwd=away.work)
    git("reset", "--hard", "HEAD~1", cwd=away.work)
    return sha


def told_of(sha: str, number: int, *, fork: bool = True, action: bool = True) -> PullRequest:
    return PullRequest(
        number=number, sha=sha, head="refs/heads/topic", base=MAIN, ref=f"refs/pull/{number}/head",
        head_repository="2" if fork else "1", base_repository="1", open=action, title="Better",
    )  # fmt: skip


def test_a_pull_request_that_nobody_told_of_waits_for_an_approval_and_is_built_as_a_forks(
    away: Outside, alice: Any
) -> None:
    sha = opened(away, 7)
    for _ in range(2):
        away.look()
        away.plan()

    delivery = Delivery.objects.get()
    assert (delivery.verdict, delivery.sha, delivery.kind) == ("waiting", sha, "pull")
    assert away.built == []

    Membership.objects.create(project=away.project, user=alice, role=Role.MAINTAINER)
    approve(pull_request=delivery.pull_request, sha=sha, user=alice)
    away.plan()
    made = Pipeline.objects.get()
    assert (made.commit, made.from_fork, made.pull_request) == (sha, True, 7)


def test_a_pull_request_that_was_there_before_the_project_is_not_listed(
    away: Outside,
) -> None:
    opened(away, 7)
    Poll.objects.update(heads=None)
    away.look()
    assert not Delivery.objects.exists()


def test_the_forge_that_tells_of_a_found_pull_request_later_tells_of_the_same(
    away: Outside,
) -> None:
    sha = opened(away, 7)
    away.look()

    told, _ = receive(
        project=away.project, forge="gitea", envelope=Envelope("pull_request", "late"),
        events=[told_of(sha, 7)], headers={}, body=b"",
    )  # fmt: skip

    assert told.verdict == "duplicate"
    row = PullRow.objects.get()
    assert (row.forge, row.title, row.sha) == ("gitea", "Better", sha)


def test_a_new_commit_of_a_fork_that_no_webhook_told_of_takes_the_place_of_the_one_before(
    away: Outside,
) -> None:
    first = opened(away, 7)
    receive(
        project=away.project, forge="github", envelope=Envelope("pull_request", "1"),
        events=[told_of(first, 7)], headers={}, body=b"",
    )  # fmt: skip
    away.look()
    assert Delivery.objects.count() == 1  # nothing new

    second = opened(away, 7)
    away.look()

    row = PullRow.objects.get()
    assert (row.forge, row.title, row.sha, row.waits) == ("github", "Better", second, True)
    verdicts = dict(Delivery.objects.values_list("sha", "verdict"))
    assert verdicts == {first: "ignored", second: "waiting"}


def hear(away: Outside, sha: str, delivery: str) -> str:
    found, _ = receive(
        project=away.project, forge="github", envelope=Envelope("pull_request", delivery),
        events=[told_of(sha, 7)], headers={}, body=b"",
    )  # fmt: skip
    return found.verdict


def test_an_older_commit_of_a_fork_that_is_told_late_gives_way_at_the_next_look(
    away: Outside,
) -> None:
    older, newer = opened(away, 7), opened(away, 7)
    away.look()
    assert hear(away, newer, "2") == "duplicate"  # the look was faster
    Poll.objects.update(next_at=timezone.now() + timedelta(minutes=5))

    assert hear(away, older, "1") == "waiting"

    assert Poll.objects.get().next_at <= timezone.now()
    away.look()
    assert (PullRow.objects.get().sha, PullRow.objects.get().waits) == (newer, True)
    assert [d.sha for d in Delivery.objects.filter(verdict="waiting")] == [newer]


def test_a_fork_that_goes_back_by_force_is_believed_when_git_says_so(away: Outside) -> None:
    first = opened(away, 7)
    hear(away, first, "1")
    hear(away, opened(away, 7), "2")
    git("push", "--force", str(away.upstream), f"{first}:refs/pull/7/head", cwd=away.work)

    assert hear(away, first, "3") == "stale"
    away.look()

    assert (PullRow.objects.get().sha, PullRow.objects.get().waits) == (first, True)


def test_a_pull_request_of_the_projects_own_branch_is_the_push_of_that_branch(
    away: Outside,
) -> None:
    sha = away.push("topic")
    git("push", str(away.upstream), "HEAD:refs/pull/8/head", cwd=away.work)
    away.look()

    assert [d.ref for d in Delivery.objects.all()] == ["refs/heads/topic"]
    assert not PullRow.objects.exists()

    receive(
        project=away.project, forge="github", envelope=Envelope("pull_request", "1"),
        events=[told_of(sha, 8, fork=False)], headers={}, body=b"",
    )  # fmt: skip
    opened(away, 8)  # the ref was seen before its branch
    away.look()
    assert not PullRow.objects.get().waits


def test_of_very_many_pull_requests_the_newest_are_remembered(
    away: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ciserver.repositories.git.PULLS", 2)
    for number in (9, 10, 11):
        opened(away, number)

    assert set(ls_remote(away.project)) == {MAIN, "refs/pull/10/head", "refs/pull/11/head"}


def test_a_repository_that_is_away_is_said_to_be_and_tried_again(away: Outside) -> None:
    Project.objects.update(clone_url="http://127.0.0.1:1/x.git")

    away.look()

    assert "could not be fetched" in Poll.objects.get().error


def test_each_repository_is_looked_at_when_its_time_has_come(
    away: Outside, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(reconcile.app, "send_task", lambda *_, **more: sent.append(more["args"]))

    assert (reconcile.look_around(), reconcile.look_around()) == (1, 0)
    assert sent == [[away.project.pk]]
    pause = Poll.objects.get().next_at - timezone.now()
    assert timedelta(minutes=4) < pause < timedelta(minutes=5.5)

    Poll.objects.update(next_at=timezone.now(), quiet=reconcile.QUIET_AFTER)
    reconcile.look_around()
    assert Poll.objects.get().next_at - timezone.now() > timedelta(minutes=20)


def test_a_look_that_no_worker_was_told_of_stays_due(away: Outside) -> None:
    with pytest.raises(OperationalError):
        reconcile.look_around()  # there is no Redis here

    assert Poll.objects.get().next_at <= timezone.now()
