"""Which files a pipeline changes, for ``when: paths:``."""

from __future__ import annotations

import logging
from pathlib import Path

from ciserver.pipelines.models import Event, Pipeline, State
from ciserver.repositories import git, history
from ciserver.repositories.errors import RepositoryError

log = logging.getLogger(__name__)


def changed_paths(pipeline: Pipeline, git_dir: Path) -> frozenset[str] | None:
    """The files that differ from what was last found good on its ref; of a new ref, from where it
    left the default branch. None, all count as changed, when there is nothing to compare with or
    it was not a push that started it.

    What failed is no base: a test that it broke would be left out of the commit after it.
    """
    if pipeline.event not in {Event.PUSH, Event.PULL_REQUEST}:
        return None
    try:
        base = _last_good(pipeline) or _branching(pipeline, git_dir)
        return history.changed(git_dir, base, pipeline.commit) if base else None
    except RepositoryError as error:
        log.info("what %s changes cannot be told: %s", pipeline, error)
        return None


def _last_good(pipeline: Pipeline) -> str | None:
    rows = Pipeline.objects.filter(
        project=pipeline.project_id,
        ref=pipeline.ref,
        from_fork=pipeline.from_fork,
        state=State.PASSED,
        number__lt=pipeline.number,
    )
    return rows.order_by("-number").values_list("commit", flat=True).first()


def _branching(pipeline: Pipeline, git_dir: Path) -> str | None:
    main = f"refs/heads/{pipeline.project.default_branch}"
    head = git.heads(git_dir, main).get(main)
    if head is None or pipeline.ref == main:
        return None
    return history.merge_base(git_dir, head, pipeline.commit)
