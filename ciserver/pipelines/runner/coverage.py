"""Reading a test's coverage reports, and the pipeline's figure when it ends."""

from __future__ import annotations

import logging
from pathlib import Path

from builders.containers import Container
from ciserver.pipelines import coverage
from ciserver.pipelines.coverage_reports import (
    MOST_LINES,
    CoverageError,
    Files,
    lines_of,
    merge,
    parse,
    to_ranges,
)
from ciserver.pipelines.definition import Test
from ciserver.pipelines.models import CoverageFile, Pipeline, State
from ciserver.pipelines.runner.jobs import JobRun
from ciserver.pipelines.runner.reports import found
from ciserver.repositories import git, history
from ciserver.repositories.errors import RepositoryError

log = logging.getLogger(__name__)
MAX_REPORT = 32 * 1024 * 1024
MAX_REPORTS = 200
MAX_TOGETHER = 128 * 1024 * 1024
ANCESTORS = 200


def read_coverage(run: JobRun, test: Test, container: Container) -> None:
    """Keep the reports as rows, in place of an earlier try's. A bad one is said, not fatal."""
    run.job.coverage_files.all().delete()
    files: Files = {}
    room = MAX_TOGETHER
    mask = run.log.masker.mask_text
    for path in found(run, container, test.coverage, "coverage report", most=MAX_REPORTS):
        try:
            data = container.read_file(path, min(MAX_REPORT, room))
            room -= len(data)
            most = MOST_LINES - lines_of(files)  # of all reports together
            merge(files, parse(data, mask, most=most))
        except (CoverageError, OSError) as error:
            run.log.say(f"The coverage report {path} cannot be read: {error}.")
    CoverageFile.objects.bulk_create(
        CoverageFile(
            job=run.job,
            path=path,
            covered_lines=to_ranges(lines.covered),
            missed_lines=to_ranges(lines.missed),
        )
        for path, lines in files.items()
    )


def figures(pipeline: Pipeline) -> dict[str, object]:
    """The pipeline row's fields about coverage, once its jobs have ended."""
    files = coverage.measured(pipeline)
    if not files:
        return {}
    lines, covered = coverage.totals(files)
    return {
        "coverage_lines": lines,
        "coverage_covered": covered,
        "coverage_base": _base(pipeline),
    }


def _base(pipeline: Pipeline) -> Pipeline | None:
    """The nearest pipeline with coverage: of the commit where this one left the default branch,
    or, on that, of the commit before; else of one of their ancestors."""
    git_dir = git.git_dir(pipeline.project)
    try:
        shas = history.ancestors(git_dir, _start(pipeline, git_dir), limit=ANCESTORS)
    except RepositoryError as error:
        log.info("the base of %s cannot be told: %s", pipeline, error)
        return None
    rows = Pipeline.objects.filter(
        project=pipeline.project_id,
        commit__in=[sha for sha in shas if sha != pipeline.commit],
        state=State.PASSED,
        coverage_lines__isnull=False,
        from_fork=False,
    )
    place = {sha: at for at, sha in enumerate(shas)}
    return min(rows, key=lambda row: (place[row.commit], -row.pk), default=None)


def _start(pipeline: Pipeline, git_dir: Path) -> str:
    main = f"refs/heads/{pipeline.project.default_branch}"
    head = git.heads(git_dir, main).get(main)
    if head is None or pipeline.ref == main:
        return pipeline.commit
    return history.merge_base(git_dir, head, pipeline.commit) or pipeline.commit
