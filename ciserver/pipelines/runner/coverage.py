"""Reading a test's coverage reports, and the pipeline's figure when it ends."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from builders.containers import Container
from ciserver.pipelines import coverage
from ciserver.pipelines.coverage_reports import (
    MOST_LINES,
    CoverageError,
    Files,
    count,
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
_ONE_AT_A_TIME = threading.Lock()
MAX_REPORT = 32 * 1024 * 1024
MAX_REPORTS = 200
MAX_TOGETHER = 128 * 1024 * 1024
ANCESTORS = 200


def read_coverage(run: JobRun, test: Test, container: Container) -> None:
    """Keep the reports as rows, in place of an earlier try's. A bad one is said, not fatal."""
    with _ONE_AT_A_TIME:  # those of other jobs count, too
        _read(run, test, container)


def _read(run: JobRun, test: Test, container: Container) -> None:
    run.job.coverage_files.all().delete()
    files: Files = {}
    room_for_lines = MOST_LINES - _lines_of_others(run)
    room = MAX_TOGETHER
    mask = run.log.masker.mask_text
    for path in found(run, container, test.coverage, "coverage report", most=MAX_REPORTS):
        try:
            data = container.read_file(path, min(MAX_REPORT, room))
            room -= len(data)
            most = room_for_lines - lines_of(files)
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


def _lines_of_others(run: JobRun) -> int:
    """Of the other jobs of this run of its pipeline that are there already."""
    others = CoverageFile.objects.filter(job__pipeline=run.job.pipeline_id, job__run=run.job.run)
    rows = others.values_list("covered_lines", "missed_lines").iterator()
    return sum(count(text) for row in rows for text in row)


def figures(pipeline: Pipeline) -> dict[str, object]:
    """The pipeline row's fields about coverage, once its jobs have ended."""
    lines = covered = files = 0
    for one in coverage.measured(pipeline):
        files, lines, covered = files + 1, lines + one.lines, covered + one.covered
    if not files:
        return {}
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
