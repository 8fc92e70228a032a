"""A mistake in a Dockerfile is shown where it is: its line, and a caret under the word."""

from __future__ import annotations

import subprocess
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest

from ciserver.pipelines.models import JobKind, Pipeline, State
from ciserver.pipelines.runner.jobs import JobFailed, working_on
from ciserver.pipelines.runner.plan import make_plan
from ciserver.pipelines.runner.workshop import Workshop
from runtime.spec import Limits
from tests.ciserver.pages import seeding


@pytest.fixture
def mistaken(project: Any, tmp_path: Path) -> tuple[Pipeline, Path]:
    """A pipeline of a commit whose Dockerfile has a mistake in its second line."""
    root = tmp_path / "repo"
    root.mkdir()
    (root / "Dockerfile").write_text("FROM a\n\tRNU true\n")
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    pipeline = seeding.make_pipeline(project, 1)
    pipeline.commit = head.stdout.strip()
    pipeline.save()
    return pipeline, root / ".git"


def test_log_and_job_hold_the_line_with_a_caret(mistaken: tuple[Pipeline, Path]) -> None:
    pipeline, git_dir = mistaken
    job = seeding.make_job(pipeline, 1, "build", JobKind.BUILD, state=State.QUEUED)
    workshop = cast(Workshop, None)  # the mistake is found before anything is built
    with pytest.raises(JobFailed), working_on(job, workshop, Event()):
        make_plan(pipeline, git_dir, Limits())
    job.refresh_from_db()
    assert (job.place, job.excerpt) == ("Dockerfile:2:2", "   RNU true\n   ^")
    log = job.log_path.read_text()
    assert log.index("Unknown instruction") < log.index("   RNU true") < log.index("Did you mean")
