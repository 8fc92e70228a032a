"""Git's ancestry decides what is the head, never the order in which deliveries arrive."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from ciserver.pipelines.models import Pipeline
from ciserver.repositories import git as repositories
from ciserver.repositories.git import create_hosted
from ciserver.repositories.spool import Push, Update
from ciserver.webhooks import runner, services
from ciserver.webhooks.models import Delivery
from ciserver.webhooks.tasks import plan
from tests.ciserver.repositories.serving import commit, git
from tests.ciserver.webhooks.conftest import Post, push

MAIN = "refs/heads/main"


@pytest.fixture
def repository(project: Any) -> Path:
    return Path(create_hosted(project))


@pytest.fixture
def shas(repository: Path, tmp_path: Path) -> list[str]:
    """Three commits, each on top of the one before; main is at the last."""
    made = [commit(tmp_path, {"a": str(number)}) for number in range(3)]
    git("push", str(repository), "main", cwd=tmp_path)
    return made


@pytest.mark.parametrize("planned", ["after each", "at the end"])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_three_pushes_in_any_order_leave_the_true_head(
    post: Post, shas: list[str], order: tuple[int, ...], planned: str
) -> None:
    deliveries = []
    for number in order:
        answer = post(push(after=shas[number]), delivery=f"d-{number}")
        assert answer.status_code == 202
        deliveries.append(answer.json()["delivery"])
        if planned == "after each":
            plan(deliveries[-1])
    for delivery in deliveries:
        plan(delivery)

    assert [pipeline.commit for pipeline in Pipeline.objects.all()] == [shas[2]]
    verdicts = dict(Delivery.objects.values_list("sha", "verdict"))
    assert verdicts == {shas[0]: "stale", shas[1]: "stale", shas[2]: "accepted"}


def test_an_old_delivery_replayed_under_a_new_id_is_recorded_stale_and_builds_nothing(
    post: Post, shas: list[str]
) -> None:
    plan(post(push(after=shas[2]), delivery="now").json()["delivery"])

    answer = post(push(after=shas[0]), delivery="months later")
    plan(answer.json()["delivery"])

    assert answer.status_code == 202
    replayed = Delivery.objects.get(delivery_id="months later")
    assert replayed.verdict == "stale"
    assert (
        replayed.detail == f"Stale: {MAIN} is at {shas[2][:12]} now, no longer at {shas[0][:12]}."
    )
    assert [pipeline.commit for pipeline in Pipeline.objects.all()] == [shas[2]]
    again = post(push(after=shas[0]), delivery="months later").json()
    assert again["verdict"] == "duplicate"


def test_a_branch_that_moves_between_looking_and_queueing_is_looked_at_again(
    post: Post, shas: list[str], repository: Path, monkeypatch: Any
) -> None:
    git("update-ref", MAIN, shas[1], cwd=repository)
    slow = post(push(after=shas[1]), delivery="slow").json()["delivery"]
    quick = post(push(after=shas[2]), delivery="quick").json()["delivery"]
    look = runner._look

    def overtaken(delivery: Delivery) -> Any:
        found = look(delivery)
        if delivery.pk == slow:
            monkeypatch.setattr(runner, "_look", look)
            git("update-ref", MAIN, shas[2], cwd=repository)
            plan(quick)
        return found

    monkeypatch.setattr(runner, "_look", overtaken)
    plan(slow)

    assert [pipeline.commit for pipeline in Pipeline.objects.all()] == [shas[2]]
    assert Delivery.objects.get(pk=slow).verdict == "stale"


def take_up(project: Any, shas: list[str], number: int) -> None:
    update = Update(old=shas[number - 1], new=shas[number], ref=MAIN)
    moved = Push(id=f"push-{number}", user="alice", updates=(update,), path=Path("/nowhere"))
    services._ingest_update(project, moved, update)


def test_a_push_to_our_own_git_that_is_taken_up_late_does_not_come_after_a_later_one(
    project: Any, shas: list[str]
) -> None:
    for number in (2, 1):
        take_up(project, shas, number)

    assert [pipeline.commit for pipeline in Pipeline.objects.all()] == [shas[2]]
    assert Delivery.objects.get(sha=shas[1]).verdict == "stale"


def test_a_push_to_our_own_git_that_another_follows_is_built_all_the_same(
    project: Any, shas: list[str]
) -> None:
    for number in (1, 2):
        take_up(project, shas, number)

    assert [pipeline.commit for pipeline in Pipeline.objects.order_by("pk")] == shas[1:]


def test_a_push_to_our_own_git_that_another_overtakes_while_git_is_asked_is_stale(
    project: Any, shas: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = runner.look_at_hosted

    def overtaken(delivery: Delivery) -> Any:
        found = look(delivery)
        if delivery.sha == shas[1]:
            monkeypatch.setattr(runner, "look_at_hosted", look)
            take_up(project, shas, 2)
        return found

    monkeypatch.setattr(runner, "look_at_hosted", overtaken)
    take_up(project, shas, 1)

    assert [pipeline.commit for pipeline in Pipeline.objects.all()] == [shas[2]]
    assert Delivery.objects.get(sha=shas[1]).verdict == "stale"


@pytest.mark.django_db(transaction=True)
def test_git_is_asked_of_a_push_under_no_lock(
    project: Any, shas: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    run = repositories.run

    def noted(*words: str, **more: Any) -> bytes:
        asked.append(connection.in_atomic_block)
        return run(*words, **more)

    monkeypatch.setattr(repositories, "run", noted)
    take_up(project, shas, 2)

    assert Pipeline.objects.get().commit == shas[2]
    assert asked
    assert not any(asked)
