"""From an accepted delivery to its pipeline: Git is believed, the payload is not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from ciserver.lib.models import OutboxEntry
from ciserver.pipelines.models import Pipeline
from ciserver.projects.models import Project
from ciserver.repositories.errors import GitFailed
from ciserver.repositories.git import create_hosted
from ciserver.webhooks import runner
from ciserver.webhooks.models import Delivery
from ciserver.webhooks.tasks import plan
from tests.ciserver.repositories.serving import commit, git
from tests.ciserver.webhooks.conftest import SHA, Post, push
from tests.together import together


@pytest.fixture
def head(project: Any, tmp_path: Path) -> str:
    sha = commit(tmp_path, {"a": "1"}, "The true subject")
    git("push", str(create_hosted(project)), "main", cwd=tmp_path)
    return sha


def test_a_delivery_becomes_a_pipeline_with_what_git_knows_of_the_commit(
    post: Post, head: str
) -> None:
    forged = {"message": "forged", "author": {"name": "forged"}}
    post(push(after=head, head_commit=forged))
    delivery = Delivery.objects.get()

    plan(delivery.pk)

    delivery.refresh_from_db()
    pipeline = Pipeline.objects.get()
    assert delivery.pipeline == pipeline
    assert (pipeline.commit, pipeline.title) == (head, "The true subject")
    assert pipeline.author == "Alice Example"
    topics = OutboxEntry.objects.values_list("topic", flat=True)
    assert list(topics) == ["pipeline.queued"]


def test_a_task_that_runs_again_changes_nothing(post: Post, head: str) -> None:
    post(push(after=head))
    delivery = Delivery.objects.get()

    for _ in range(3):
        plan(delivery.pk)

    assert Pipeline.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_tasks_that_run_at_once_queue_one_pipeline(post: Post, head: str) -> None:
    post(push(after=head))
    delivery = Delivery.objects.get()

    together(plan, [delivery.pk] * 4)

    assert Pipeline.objects.count() == 1


def test_a_commit_that_git_does_not_have_fails_with_a_sentence(post: Post, head: str) -> None:
    post(push(after=SHA))
    delivery = Delivery.objects.get()

    plan(delivery.pk)

    delivery.refresh_from_db()
    assert delivery.verdict == "failed"
    assert delivery.detail == f"The repository has no commit {SHA[:12]}."
    assert not Pipeline.objects.exists()
    assert not OutboxEntry.objects.exists()


def test_a_commit_that_is_no_longer_the_head_is_stale(
    post: Post, head: str, project: Any, tmp_path: Path
) -> None:
    newer = commit(tmp_path, {"a": "2"})
    git("push", str(create_hosted(project)), "main", cwd=tmp_path)
    post(push(after=head))
    delivery = Delivery.objects.get()

    plan(delivery.pk)

    delivery.refresh_from_db()
    assert delivery.verdict == "stale"
    assert f"Stale: refs/heads/main is at {newer[:12]} now" in delivery.detail
    assert not Pipeline.objects.exists()


@pytest.mark.usefixtures("loopback_is_outside")
def test_the_address_in_a_payload_is_never_asked(
    post: Post, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Project.objects.filter(pk=project.pk).update(clone_url="http://127.0.0.1:1/stored.git")
    post(push(repository={"clone_url": "http://127.0.0.1:2/forged.git"}))
    delivery = Delivery.objects.get()
    Delivery.objects.update(received_at=timezone.now() - timedelta(hours=1))

    plan(delivery.pk)

    delivery.refresh_from_db()
    assert delivery.verdict == "failed"
    assert "http://127.0.0.1:1/stored.git" in delivery.detail
    assert "forged" not in delivery.detail


@pytest.mark.usefixtures("loopback_is_outside")
def test_an_outside_repository_that_is_unreachable_is_tried_again(post: Post, project: Any) -> None:
    Project.objects.filter(pk=project.pk).update(clone_url="http://127.0.0.1:1/stored.git")
    post(push())
    delivery = Delivery.objects.get()

    plan(delivery.pk)

    delivery.refresh_from_db()
    assert delivery.verdict == "accepted"
    assert OutboxEntry.objects.filter(object_id=delivery.pk).exists()


def test_what_nobody_foresaw_is_tried_again_and_settled_after_a_while(
    post: Post, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("year 33658 is out of range")

    monkeypatch.setattr(runner, "commit_info", broken)
    post(push(after=head))
    delivery = Delivery.objects.get()

    plan(delivery.pk)

    delivery.refresh_from_db()
    assert delivery.verdict == "accepted"
    assert OutboxEntry.objects.exists()

    Delivery.objects.update(received_at=timezone.now() - runner.PATIENCE)
    plan(delivery.pk)

    delivery.refresh_from_db()
    assert delivery.verdict == "failed"
    assert "Gantry itself failed over this delivery (ValueError). Send it" in delivery.detail
    assert not OutboxEntry.objects.exists()


def test_a_git_that_takes_too_long_is_tried_again(
    post: Post, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any) -> None:
        raise GitFailed("git rev-list did not end within 30 seconds.")

    with monkeypatch.context() as patched:
        patched.setattr(runner, "commit_info", slow)
        post(push(after=head))
        plan(Delivery.objects.get().pk)

    plan(Delivery.objects.get().pk)

    assert Pipeline.objects.get().commit == head


def test_a_delivery_that_is_gone_is_no_error(db: None) -> None:
    plan(12345)


@pytest.mark.parametrize("told", ["tag", "commit"])
def test_an_annotated_tag_is_built_at_its_commit(
    post: Post, head: str, project: Any, tmp_path: Path, told: str
) -> None:
    git("tag", "-a", "v1", "-m", "One", cwd=tmp_path)
    git("push", str(create_hosted(project)), "v1", cwd=tmp_path)
    sha = head if told == "commit" else git("rev-parse", "v1", cwd=tmp_path)
    post(push("refs/tags/v1", after=sha))

    plan(Delivery.objects.get().pk)

    pipeline = Pipeline.objects.get()
    assert (pipeline.commit, pipeline.ref) == (head, "refs/tags/v1")


@pytest.mark.parametrize("message", ["Typo [skip ci]", "Typo\n\nno use: [CI SKIP]"])
def test_a_commit_that_asks_not_to_be_built_is_recorded_and_not_built(
    post: Post, project: Any, tmp_path: Path, message: str
) -> None:
    sha = commit(tmp_path, {"a": "1"}, message)
    git("push", str(create_hosted(project)), "main", cwd=tmp_path)
    post(push(after=sha))

    plan(Delivery.objects.get().pk)

    delivery = Delivery.objects.get()
    assert delivery.verdict == "ignored"
    assert "nothing is built of it" in delivery.detail
    assert not Pipeline.objects.exists()
