"""Starting pipelines without a push: inputs, times of day, and groups that want only the newest."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from ciserver.lib.models import OutboxEntry
from ciserver.lib.problems import Refused
from ciserver.pipelines import leases, services, starting
from ciserver.pipelines.definition import parse
from ciserver.pipelines.groups import wake_group
from ciserver.pipelines.models import Event, Pipeline, Schedule, State
from ciserver.pipelines.runner.changes import changed_paths
from ciserver.pipelines.runner.commit_files import PlanError
from ciserver.pipelines.runner.plan import make_plan
from ciserver.pipelines.starts import BadInput, next_after, read_inputs
from ciserver.pipelines.turns import next_ones
from ciserver.projects.models import Role
from ciserver.repositories import git
from runtime.spec import Limits

YAML = """
inputs:
  level: {type: choice, options: [low, high], default: low, description: How thorough}
  count: {type: number}
  dry: {type: boolean, default: yes}
  note: {}
schedule:
  - cron: "0 3 * * *"
    inputs: {level: high}
concurrency: {group: "x-${branch}", cancel: true}
"""


class Hosted:
    """The hosted repository of a project, and commits pushed to it as Git does."""

    def __init__(self, project: Any, tree: Path) -> None:
        self.project, self.tree = project, tree
        tree.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.target = git.create_hosted(project)

    def git(self, *words: str) -> str:
        who = {"GIT_AUTHOR_NAME": "Alice", "GIT_AUTHOR_EMAIL": "alice@example.org"}
        who |= {"GIT_COMMITTER_NAME": "Alice", "GIT_COMMITTER_EMAIL": "alice@example.org"}
        done = subprocess.run(
            ["git", *words],
            cwd=self.tree,
            capture_output=True,
            check=True,
            text=True,
            env={**os.environ, **who},
        )
        return done.stdout.strip()

    def push(self, files: dict[str, str], branch: str = "main") -> str:
        for name, text in files.items():
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", "Change")
        self.git("push", "--quiet", "--force", str(self.target), f"HEAD:refs/heads/{branch}")
        return self.git("rev-parse", "HEAD")

    def close(self) -> None:
        """The next test's project has the same number."""
        shutil.rmtree(self.target)

    def queue(self, commit: str, branch: str = "main", **more: Any) -> Pipeline:
        ref = f"refs/heads/{branch}"
        return services.queue(project=self.project, commit=commit, ref=ref, **more)


@pytest.fixture
def hosted(project: Any, tmp_path: Path) -> Iterator[Hosted]:
    with closing(Hosted(project, tmp_path / "tree")) as made:
        yield made


def test_inputs_are_read_as_their_type() -> None:
    known = parse(YAML).inputs
    given = {"count": "3.5", "dry": "off", "note": ""}
    assert read_inputs(known, given) == {
        "level": "low",
        "count": "3.5",
        "dry": "false",
        "note": "",
    }


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("level", "middle", "expected one of low, high"),
        ("count", "many", "expected a number"),
        ("count", "nan", "expected a number"),
        ("dry", "perhaps", "expected true or false"),
        ("note", "x" * 1001, "1000 characters"),
        ("other", "1", "there is no such input; gantry.yml there has level, count, dry, note"),
    ],
)
def test_an_input_that_does_not_fit_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_inputs(parse(YAML).inputs, {name: value})
    assert caught.value.name == name
    assert words in str(caught.value)


def test_a_person_starts_a_branch_with_inputs(hosted: Hosted, bob: Any) -> None:
    commit = hosted.push({"gantry.yml": YAML})
    pipeline = starting.start(
        project=hosted.project, user=bob, ref="main", inputs={"level": "high"}, event=Event.MANUAL
    )
    assert (pipeline.commit, pipeline.event, pipeline.started_by) == (commit, "manual", "bob")
    assert pipeline.inputs == {"level": "high", "dry": "true"}
    assert OutboxEntry.objects.filter(topic="pipeline.queued", object_id=pipeline.pk).exists()


@pytest.mark.parametrize(
    ("ref", "inputs", "words"),
    [
        ("nowhere", {}, "hello has no branch or tag 'nowhere'"),
        ("main", {"level": "x"}, "The input level cannot be used: expected one of low, high."),
        ("../x", {}, "is not a ref"),
    ],
)
def test_what_cannot_be_started_is_refused(
    hosted: Hosted, bob: Any, ref: str, inputs: dict[str, str], words: str
) -> None:
    hosted.push({"gantry.yml": YAML})
    with pytest.raises(Refused) as caught:
        starting.start(project=hosted.project, user=bob, ref=ref, inputs=inputs, event=Event.MANUAL)
    assert words in str(caught.value)
    assert caught.value.hint
    assert not Pipeline.objects.exists()


def test_a_protected_ref_is_started_by_who_may_push_to_it(
    hosted: Hosted, alice: Any, bob: Any
) -> None:
    hosted.push({"gantry.yml": YAML})
    hosted.push({"gantry.yml": YAML}, "release/1")
    hosted.push({"gantry.yml": YAML}, "topic")
    hosted.project.push_role = Role.MAINTAINER
    hosted.project.protected_branches = ["release/*"]
    hosted.project.save()

    def start(user: Any, ref: str) -> Pipeline:
        event = Event.MANUAL
        return starting.start(project=hosted.project, user=user, ref=ref, inputs={}, event=event)

    for ref in ("main", "", "release/1"):
        with pytest.raises(Refused, match="needs the role maintainer in hello") as caught:
            start(bob, ref)
        assert caught.value.status == 403
        assert start(alice, ref).protected
    assert not start(bob, "topic").protected


@pytest.mark.django_db(transaction=True)
def test_git_is_asked_while_nobody_waits_for_the_database(
    hosted: Hosted, alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def run(command: str, *words: Any, **more: Any) -> bytes:
        asked.append((command, connection.in_atomic_block))
        return run_git(command, *words, **more)

    run_git = git.run
    monkeypatch.setattr(git, "run", run)
    hosted.queue(hosted.push({"gantry.yml": YAML}))
    starting.start(project=hosted.project, user=alice, ref="main", inputs={}, event=Event.MANUAL)
    Schedule.objects.update(next_at=timezone.now())
    assert starting.start_scheduled() == 1
    assert "cat-file" in dict(asked)
    assert not any(locked for _, locked in asked)


def test_mistakes_in_the_file_that_is_started_are_told_with_what_to_do(
    hosted: Hosted, bob: Any
) -> None:
    hosted.push({"gantry.yml": "tests: {a: {memry: 1}}"})
    with pytest.raises(Refused) as caught:
        starting.head_of(hosted.project, "main")
    assert "gantry lint" in caught.value.hint
    pipeline = hosted.queue(hosted.git("rev-parse", "HEAD"))
    with pytest.raises(PlanError) as planned:
        make_plan(pipeline, hosted.target, Limits())
    assert planned.value.place == "gantry.yml:1: tests.a.memry"
    assert "gantry lint" in planned.value.hint


@pytest.mark.parametrize("name", ["gantry.yaml", ".gantry.yml"])
def test_a_file_of_nearly_that_name_is_told_and_not_passed_over(hosted: Hosted, name: str) -> None:
    commit = hosted.push({"Dockerfile": "FROM busybox\n", name: "tests: {a: {command: x}}"})
    with pytest.raises(PlanError) as caught:
        make_plan(hosted.queue(commit), hosted.target, Limits())
    assert caught.value.place == name
    assert caught.value.hint == f"git mv {name} gantry.yml"
    both = hosted.push({"gantry.yml": "tests: {}"})
    assert make_plan(hosted.queue(both), hosted.target, Limits()).tests == {}


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_link_or_a_folder_in_its_place_is_told(hosted: Hosted, kind: str) -> None:
    place = hosted.tree / "gantry.yml"
    if kind == "link":
        place.symlink_to("ops/gantry.yml")
    inside = "ops/gantry.yml" if kind == "link" else "gantry.yml/x"
    commit = hosted.push({"Dockerfile": "FROM busybox\n", inside: "tests: {a: {command: x}}"})
    with pytest.raises(PlanError, match="This is no file") as caught:
        make_plan(hosted.queue(commit), hosted.target, Limits())
    assert caught.value.place == "gantry.yml"


def test_the_times_of_the_default_branch_are_kept_and_start_it(hosted: Hosted) -> None:
    hosted.queue(hosted.push({"gantry.yml": "schedule: [{cron: '5 4 * * *'}]"}, "next"), "next")
    assert not Schedule.objects.exists()
    commit = hosted.push({"gantry.yml": YAML})
    first = hosted.queue(commit)
    (row,) = Schedule.objects.all()
    assert (row.cron, row.inputs) == ("0 3 * * *", {"level": "high"})
    assert (row.next_at.hour, row.next_at.minute) == (3, 0)
    assert starting.start_scheduled() == 0
    # The service was away for a week: what was missed is made up for once.
    Schedule.objects.update(next_at=timezone.now() - timedelta(days=7))
    assert starting.start_scheduled() == 1
    assert starting.start_scheduled() == 0
    made = Pipeline.objects.exclude(pk=first.pk).get(ref="refs/heads/main")
    assert (made.event, made.started_by, made.commit) == ("schedule", "0 3 * * *", commit)
    assert made.inputs["level"] == "high"
    assert Schedule.objects.get().next_at > timezone.now()
    hosted.queue(hosted.push({"gantry.yml": ""}))
    assert not Schedule.objects.exists()


def test_a_time_that_is_written_twice_is_one_and_goes_with_its_line(hosted: Hosted) -> None:
    inputs = "inputs: {count: {}, a: {}, zz: {}}\n"
    entry = "{cron: '0 3 * * *', inputs: {zz: 1, count: 2, a: 3}}"
    other = "{cron: '0 3 * * *'}"
    for _ in range(3):
        hosted.queue(hosted.push({"gantry.yml": f"{inputs}schedule: [{entry}, {other}, {entry}]"}))
    assert Schedule.objects.count() == 2
    # A time stays what it is, in whatever order a database keeps its inputs.
    due = timezone.now() - timedelta(minutes=1)
    Schedule.objects.exclude(inputs={}).update(
        inputs={"a": "3", "count": "2", "zz": "1"}, next_at=due
    )
    hosted.queue(hosted.push({"gantry.yml": f"{inputs}schedule: [{entry}]"}))
    assert [row.next_at for row in Schedule.objects.all()] == [due]
    hosted.queue(hosted.push({"gantry.yml": ""}))
    assert not Schedule.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_scheduler_starts_what_is_due(hosted: Hosted) -> None:
    """One round of ``manage.py tick`` as it is, with all that it does."""
    first = hosted.queue(hosted.push({"gantry.yml": YAML}))
    call_command("tick", once=True)
    assert not Pipeline.objects.exclude(pk=first.pk).exists()
    Schedule.objects.update(next_at=timezone.now() - timedelta(seconds=1))
    for _ in range(2):
        call_command("tick", once=True)
    made = Pipeline.objects.exclude(pk=first.pk).get()
    assert (made.event, made.state, made.inputs["level"]) == ("schedule", "queued", "high")
    assert OutboxEntry.objects.filter(topic="pipeline.queued", object_id=made.pk).exists()


def test_a_schedule_that_can_start_nothing_says_why(hosted: Hosted) -> None:
    hosted.queue(hosted.push({"gantry.yml": YAML}))
    hosted.push({"gantry.yml": "inputs: {level: {type: number}}"})
    Schedule.objects.update(next_at=timezone.now() - timedelta(days=7))
    assert starting.start_scheduled() == 0
    assert Schedule.objects.get().trouble == "expected a number"


def test_times_outlive_a_mistake_in_the_file_and_tell_it(hosted: Hosted) -> None:
    hosted.queue(hosted.push({"gantry.yml": YAML}))
    hosted.queue(hosted.push({"gantry.yml": "schedul: []"}))
    Schedule.objects.update(next_at=timezone.now() - timedelta(days=1))
    assert starting.start_scheduled() == 0
    row = Schedule.objects.get()
    assert "there is no key 'schedul'; did you mean 'schedule'?" in row.trouble
    assert row.next_at > timezone.now()
    hosted.queue(hosted.push({"gantry.yml": YAML}))
    assert Schedule.objects.get().pk == row.pk


def test_times_are_utc() -> None:
    moment = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    assert next_after("30 4 * * *", moment) == datetime(2026, 3, 2, 4, 30, tzinfo=UTC)
    with pytest.raises(ValueError, match="expected"):
        next_after("0 0 30 2 *", moment)


def test_the_newest_of_a_group_cancels_those_before_it(hosted: Hosted) -> None:
    commit = hosted.push({"gantry.yml": YAML})
    running, queued = hosted.queue(commit), hosted.queue(commit)
    other = hosted.queue(commit, "other")
    Pipeline.objects.filter(pk=running.pk).update(state=State.RUNNING, cancel_requested_by="")
    newest = hosted.queue(commit)
    rows = {row.pk: row for row in Pipeline.objects.all()}
    words = f"#{newest.number}, which superseded it"
    assert rows[running.pk].cancel_requested_by == words
    assert rows[queued.pk].state == "cancelled"
    assert rows[queued.pk].reason == f"Cancelled by {words}."
    assert rows[other.pk].state == rows[newest.pk].state == "queued"


def test_what_was_superseded_does_not_run_again_beside_its_successor(hosted: Hosted) -> None:
    commit = hosted.push({"gantry.yml": YAML})
    older, newer = hosted.queue(commit), hosted.queue(commit)
    older.refresh_from_db()
    assert older.state == "cancelled"
    with pytest.raises(Refused, match=f"#{newer.number} took the place of hello #{older.number}"):
        services.run_again(pipeline=older, by="alice")
    Pipeline.objects.filter(pk=newer.pk).update(state=State.FAILED)
    assert services.run_again(pipeline=older, by="alice").state == "queued"
    hosted.queue(commit)
    older.refresh_from_db()
    assert older.state == "cancelled"


def test_those_of_a_group_that_waits_run_one_after_another(hosted: Hosted) -> None:
    commit = hosted.push({"gantry.yml": "concurrency: one"})
    first, second = hosted.queue(commit), hosted.queue(commit, "other")
    assert leases.claim(second.pk) is None
    assert OutboxEntry.objects.filter(object_id=second.pk).exists()
    assert leases.claim(first.pk)
    assert leases.claim(second.pk) is None
    assert second.ahead == first
    services.cancel(pipeline=Pipeline.objects.get(pk=first.pk), by="alice")
    Pipeline.objects.filter(pk=first.pk).update(state=State.CANCELLED)
    assert leases.claim(second.pk)


def test_what_anybody_may_push_cancels_nothing_of_a_protected_ref(hosted: Hosted) -> None:
    commit = hosted.push({"gantry.yml": "concurrency: {group: one, cancel: true}"})
    protected, topic = hosted.queue(commit), hosted.queue(commit, "topic")
    newer = hosted.queue(commit, "other")
    states = dict(Pipeline.objects.values_list("pk", "state"))
    assert states == {protected.pk: "queued", topic.pk: "cancelled", newer.pk: "queued"}
    hosted.queue(commit)
    states = dict(Pipeline.objects.values_list("pk", "state"))
    assert states[protected.pk] == states[newer.pk] == "cancelled"


def test_what_anybody_may_push_holds_up_nothing_of_a_protected_ref(hosted: Hosted) -> None:
    commit = hosted.push({"gantry.yml": "concurrency: one"})
    topic = hosted.queue(commit, "topic")
    assert leases.claim(topic.pk)
    other, first, second = hosted.queue(commit, "x"), hosted.queue(commit), hosted.queue(commit)
    assert (other.ahead, first.ahead, second.ahead) == (topic, None, first)
    assert next_ones() == [first.pk]
    assert leases.claim(first.pk)
    assert next_ones() == []
    # Both that may begin once the first has ended are woken for: the oldest, and the protected.
    OutboxEntry.objects.all().delete()
    services.cancel(pipeline=Pipeline.objects.get(pk=topic.pk), by="alice")
    Pipeline.objects.filter(pk__in=[topic.pk, first.pk]).update(state=State.CANCELLED)
    wake_group(first)
    assert {entry.object_id for entry in OutboxEntry.objects.all()} == {other.pk, second.pk}
    assert leases.claim(second.pk)
    assert leases.claim(other.pk) is None


def test_a_fork_is_in_no_group_of_the_project(hosted: Hosted) -> None:
    commit = hosted.push({"gantry.yml": YAML})
    own = hosted.queue(commit)
    theirs = hosted.queue(commit, from_fork=True, pull_request=7)
    own.refresh_from_db()
    assert own.state == "queued"
    assert theirs.group == "fork-7:x-main"


def test_paths_are_compared_with_what_was_last_good(hosted: Hosted) -> None:
    base = hosted.push({"a": "1", "d/b": "1"})
    first = hosted.queue(base)
    assert changed_paths(first, hosted.target) is None
    Pipeline.objects.filter(pk=first.pk).update(state=State.PASSED)
    bad = hosted.queue(hosted.push({"d/b": "2"}))
    Pipeline.objects.filter(pk=bad.pk).update(state=State.FAILED)
    third = hosted.queue(hosted.push({"a": "2"}))
    assert changed_paths(third, hosted.target) == {"a", "d/b"}
    branch = hosted.queue(hosted.push({"c": "1"}, "topic"), "topic")
    assert changed_paths(branch, hosted.target) == {"c"}
    manual = hosted.queue(third.commit, event=Event.MANUAL)
    assert changed_paths(manual, hosted.target) is None


def test_a_file_with_a_mistake_still_becomes_a_pipeline_that_tells_it(hosted: Hosted) -> None:
    pipeline = hosted.queue(hosted.push({"gantry.yml": "concurency: x"}))
    assert (pipeline.state, pipeline.group) == ("queued", "")
