"""A pipeline as a worker runs it, in real sandboxes: the graph, retries, and running it again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from builders.images.store import Store
from builders.registry import Registry
from builders.resolve import Resolver
from ciserver.lib.models import OutboxEntry
from ciserver.pipelines import inspections, services
from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.runner import story
from ciserver.pipelines.runner.workshop import Workshop
from ciserver.projects.models import ProjectSecret
from ciserver.repositories import git
from runtime.state import StateDirectory
from tests.builders.conftest import make_busybox

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]

FILES = {
    "Dockerfile": "FROM busybox AS test\nRUN true\nCMD true\n",
    "gantry.yml": """
tests:
  unit: {command: "echo again; exit 3", memory: 64m, cpus: 0.5, retries: 1}
  page: {needs: unit, memory: 64m}
  other: {command: "echo $LANGUAGE", memory: 64m, cpus: 0.5, matrix: {LANGUAGE: [en, de]}}
  tagged: {when: {tag: "v*"}, memory: 64m}
""",
}


@pytest.fixture
def area() -> Iterator[Path]:
    """A folder that a sandbox's users can walk to, which pytest's own is not."""
    path = Path("/var/tmp") / f"gantry-story-{os.getpid()}"
    path.mkdir()
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def pipeline(project: Any, area: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Queued for a commit of FILES. No registry is needed: nothing gets as far."""
    store = Store(area / "store")
    make_busybox(store, area / "busybox")
    workshop = Workshop(
        config=replace(settings.GANTRY, keep_failed=60),
        store=store,
        state=StateDirectory(area / "sandboxes"),
        registry=Registry("127.0.0.1:1"),
        resolver=Resolver(store, upstream=False),
    )
    monkeypatch.setattr(story, "open_workshop", lambda: workshop)
    tree = area / "tree"
    tree.mkdir()
    for name, text in FILES.items():
        (tree / name).write_text(text)
    _git(tree, "init", "--quiet", "--initial-branch=main")
    _git(tree, "add", "--all")
    _git(tree, "commit", "--quiet", "-m", "First")
    target = git.create_hosted(project)
    _git(tree, "push", "--quiet", str(target), "main")
    commit = _git(tree, "rev-parse", "HEAD").strip()
    made = services.queue(project=project, commit=commit, ref="refs/heads/main")
    return Pipeline.objects.get(pk=made.pk)


def test_a_failed_graph_is_told_job_by_job_and_run_again_where_it_failed(
    pipeline: Pipeline,
) -> None:
    story.run(pipeline.pk)

    pipeline.refresh_from_db()
    assert pipeline.state == "failed"
    assert pipeline.reason == "Test unit: The command ended with exit code 3."
    first = {job.name: job for job in pipeline.jobs.all()}
    assert {name: job.state for name, job in first.items()} == {
        "build": "passed",
        "unit": "failed",
        "page": "skipped",
        "other (en)": "passed",
        "other (de)": "passed",
        "tagged": "skipped",
        "push": "cancelled",
    }
    assert first["page"].reason == "It needs unit, which failed."
    assert first["tagged"].reason == "It is not for a branch, and this is branch main."
    assert [step.receipt["exit_code"] for step in first["unit"].steps.all()] == [3, 3]
    assert [bool(step.receipt["kept"]) for step in first["unit"].steps.all()] == [True, True]
    left = inspections.kept_of(first["unit"])
    assert left is not None and left.until > timezone.now()
    assert "Trying again (1 of 1)." in first["unit"].log_path.read_text()
    assert " out de\n" in first["other (de)"].log_path.read_text()
    log = first["unit"].log_path.read_bytes()

    services.run_again(pipeline=pipeline, by="alice", only_failed=True)
    story.run(pipeline.pk)

    pipeline.refresh_from_db()
    assert pipeline.state == "failed"
    second = [(job.name, job.state) for job in pipeline.jobs.filter(run=2)]
    assert second == [
        ("build", "passed"),
        ("unit", "failed"),
        ("page", "skipped"),
        ("tagged", "skipped"),
        ("push", "cancelled"),
    ]
    assert first["unit"].log_path.read_bytes() == log
    steps = pipeline.jobs.get(run=2, name="build").steps.all()
    assert [step.text for step in steps if step.cached] == ["RUN true"]


def _git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Alice", "-c", "user.email=alice@example.org"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, check=True)
    return done.stdout.decode()


def test_a_forks_pipeline_is_tested_without_secrets_and_pushes_nothing(
    pipeline: Pipeline, area: Path
) -> None:
    ProjectSecret.objects.create(project=pipeline.project, name="TOKEN", sealed="not to be opened")
    plain, curious = (
        _fork_of(pipeline, area, f"tests:\n  unit: {{command: 'true', {more} memory: 64m}}\n")
        for more in ("", "secrets: [TOKEN],")
    )
    story.run(plain.pk)
    story.run(curious.pk)

    plain.refresh_from_db()
    assert (plain.state, plain.digest) == ("passed", "")
    assert plain.jobs.get(name="push").reason == story.NOT_KEPT
    assert not OutboxEntry.objects.filter(topic="pipeline.passed").exists()
    curious.refresh_from_db()
    assert curious.state == "failed"
    assert "A pull request from a fork sees no secret" in curious.reason


def _fork_of(pipeline: Pipeline, area: Path, definition: str) -> Pipeline:
    tree = area / "tree"
    (tree / "gantry.yml").write_text(definition)
    _git(tree, "commit", "--quiet", "--all", "-m", "Of a fork")
    _git(
        tree,
        "push",
        "--quiet",
        "--force",
        str(git.git_dir(pipeline.project)),
        "main:refs/pull/7/head",
    )
    made = services.queue(
        project=pipeline.project,
        commit=_git(tree, "rev-parse", "HEAD").strip(),
        ref="refs/pull/7/head",
        from_fork=True,
        pull_request=7,
    )
    return Pipeline.objects.get(pk=made.pk)
