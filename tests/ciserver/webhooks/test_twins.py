"""The same push told twice is built once; a branch that goes back is built again."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import IntegrityError, connection

from ciserver.lib.models import OutboxEntry
from ciserver.pipelines.models import Pipeline
from ciserver.repositories.git import create_hosted
from ciserver.webhooks.models import Delivery
from ciserver.webhooks.tasks import plan
from tests.ciserver.repositories.serving import commit, git
from tests.ciserver.webhooks.conftest import Post, push
from tests.together import together

MAIN = "refs/heads/main"


class Branch:
    """Branch main of a repository with the commits ``shas``, and the forge that tells of it."""

    def __init__(self, post: Post, project: Any, work: Path) -> None:
        self.post = post
        self.project = project
        self.shas = [commit(work, {"a": str(number)}) for number in range(2)]
        self.repository = create_hosted(project)
        git("push", str(self.repository), "main:kept", cwd=work)

    def moves_to(self, number: int) -> None:
        git("update-ref", MAIN, self.shas[number], cwd=self.repository)

    def tell(self, number: int, delivery: str) -> str:
        answer = self.post(push(after=self.shas[number]), delivery=delivery)
        return str(answer.json()["verdict"])

    def plan(self) -> None:
        for entry in OutboxEntry.objects.filter(topic="delivery.accepted"):
            plan(entry.object_id)

    @property
    def built(self) -> list[int]:
        return [self.shas.index(p.commit) for p in Pipeline.objects.order_by("id")]


@pytest.fixture
def branch(post: Post, project: Any, tmp_path: Path) -> Branch:
    return Branch(post, project, tmp_path)


def test_a_branch_that_goes_back_is_built_again(branch: Branch) -> None:
    for step, number in enumerate((0, 1, 0)):
        branch.moves_to(number)
        assert branch.tell(number, f"d-{step}") == "accepted"
        branch.plan()

    assert branch.built == [0, 1, 0]
    assert branch.tell(0, "replayed") == "duplicate"


def test_a_branch_that_goes_there_and_back_before_anyone_looks_is_built_once(
    branch: Branch,
) -> None:
    branch.moves_to(0)
    for step, number in enumerate((0, 1, 0)):
        assert branch.tell(number, f"d-{step}") == "accepted"

    branch.plan()

    assert branch.built == [0]
    verdicts = Delivery.objects.order_by("id").values_list("verdict", flat=True)
    assert list(verdicts) == ["accepted", "stale", "duplicate"]
    assert Delivery.objects.latest("id").pipeline == Pipeline.objects.get()


def test_a_replay_after_a_late_delivery_of_an_older_commit_builds_nothing(branch: Branch) -> None:
    branch.moves_to(1)
    branch.tell(1, "d-1")
    branch.plan()
    branch.tell(0, "late")
    branch.tell(1, "replayed")

    branch.plan()

    assert branch.built == [1]


@pytest.mark.parametrize("state", ["queued", "running", "passed"])
def test_a_twin_counts_while_its_pipeline_may_lead_to_an_image(branch: Branch, state: str) -> None:
    branch.moves_to(0)
    branch.tell(0, "d-0")
    branch.plan()
    Pipeline.objects.update(state=state)

    assert branch.tell(0, "d-1") == branch.tell(0, "d-0") == "duplicate"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
@pytest.mark.parametrize("delivery", ["d-0", "d-1"], ids=["under its old id", "under a new id"])
def test_what_was_in_vain_may_be_delivered_again(branch: Branch, state: str, delivery: str) -> None:
    branch.moves_to(0)
    branch.tell(0, "d-0")
    branch.plan()
    Pipeline.objects.update(state=state)

    assert branch.tell(0, delivery) == "accepted"
    branch.plan()

    assert branch.built == [0, 0]
    assert branch.tell(0, "d-2") == branch.tell(0, delivery) == "duplicate"


def test_a_delivery_that_failed_may_be_sent_again(branch: Branch) -> None:
    branch.moves_to(0)
    branch.tell(0, "d-0")
    Delivery.objects.update(verdict="failed", detail="Gantry itself failed over this delivery.")

    assert branch.tell(0, "d-0") == "accepted"
    branch.plan()

    delivery = Delivery.objects.get()
    assert (delivery.verdict, delivery.detail) == ("accepted", "")
    assert branch.built == [0]


@pytest.mark.django_db(transaction=True)
def test_the_same_push_told_many_times_at_once_is_built_once(branch: Branch) -> None:
    branch.moves_to(0)

    def forge(number: int) -> str:
        verdict = branch.tell(0, f"d-{number}")
        branch.plan()
        return verdict

    verdicts = together(forge, range(6))
    branch.plan()

    assert sorted(verdicts) == ["accepted"] + ["duplicate"] * 5
    assert branch.built == [0]


@pytest.mark.django_db(transaction=True)
def test_pushes_there_and_back_told_at_once_leave_the_head_built_once(branch: Branch) -> None:
    branch.moves_to(0)

    def forge(number: int) -> None:
        branch.tell(number % 2, f"d-{number}")
        branch.plan()

    together(forge, range(6))
    branch.plan()

    assert branch.built == [0]
    assert Delivery.objects.filter(verdict="accepted", superseded=False).count() <= 1


def test_the_database_itself_keeps_two_last_words_on_a_ref_apart(project: Any) -> None:
    word = {"project": project, "ref": MAIN, "kind": "push", "verdict": "accepted"}
    Delivery.objects.create(**word, sha="a" * 40, delivery_id="1", superseded=True)
    Delivery.objects.create(**word, sha="b" * 40, delivery_id="2")

    with pytest.raises(IntegrityError):
        Delivery.objects.create(**word, sha="c" * 40, delivery_id="3")


@pytest.mark.django_db(transaction=True)
def test_what_was_accepted_before_superseding_was_known_is_superseded_but_for_the_last(
    project: Any,
) -> None:
    constraint = next(c for c in Delivery._meta.constraints if c.name == "accepted_last")
    word = {"project": project, "forge": "github", "kind": "push", "verdict": "accepted"}
    try:
        with connection.schema_editor() as editor:
            editor.remove_constraint(Delivery, constraint)
        for number, ref in enumerate((MAIN, MAIN, "refs/heads/x", MAIN)):
            Delivery.objects.create(**word, ref=ref, sha="a" * 40, delivery_id=str(number))
        with connection.schema_editor() as editor:
            module = import_module("ciserver.webhooks.migrations.0002_superseded")
            module.mark_superseded(apps, editor)
    finally:
        with connection.schema_editor() as editor:
            editor.add_constraint(Delivery, constraint)

    marks = Delivery.objects.order_by("id").values_list("superseded", flat=True)
    assert list(marks) == [True, True, False, False]
