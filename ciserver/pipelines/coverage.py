"""How much of the code a pipeline's tests ran: in all, file by file, and against its base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

from ciserver.pipelines.coverage_reports import FileLines, count, from_ranges, to_ranges
from ciserver.pipelines.models import CoverageFile, Pipeline


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """``missed`` are ranges of lines that did not run; ``change`` is in percentage points, None
    for a file that the base has not."""

    path: str
    lines: int
    covered: int
    missed: str
    change: float | None = None

    @property
    def percent(self) -> float:
        return percent(self.covered, self.lines)


def percent(covered: int, lines: int) -> float:
    return 100.0 * covered / lines if lines else 100.0


def measured(pipeline: Pipeline) -> Iterator[FileCoverage]:
    """What the jobs that make the verdict found, together: file by file, for of all lines at once a
    process would take hundreds of megabytes."""
    rows = CoverageFile.objects.filter(job__in=pipeline.latest_jobs()).order_by("path")
    told = rows.values_list("path", "covered_lines", "missed_lines").iterator()
    for path, group in groupby(told, key=itemgetter(0)):
        (_, ran, missed), *others = group
        if others:
            lines = FileLines(from_ranges(ran), from_ranges(missed))
            for _, also_ran, also_missed in others:
                lines.merge(FileLines(from_ranges(also_ran), from_ranges(also_missed)))
            ran, missed = to_ranges(lines.covered), to_ranges(lines.missed)
        covered = count(ran)
        yield FileCoverage(path, covered + count(missed), covered, missed)


def by_file(pipeline: Pipeline) -> list[FileCoverage]:
    """Of each file, those with most lines missed first."""
    base: dict[str, float] = {}
    if pipeline.coverage_base:
        base = {one.path: one.percent for one in measured(pipeline.coverage_base)}
    rows = (
        replace(one, change=one.percent - base[one.path] if one.path in base else None)
        for one in measured(pipeline)
    )
    return sorted(rows, key=lambda one: (one.covered - one.lines, one.path))
