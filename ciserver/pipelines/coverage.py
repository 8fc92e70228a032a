"""How much of the code a pipeline's tests ran: in all, file by file, and against its base."""

from __future__ import annotations

from dataclasses import dataclass

from ciserver.pipelines.coverage_reports import FileLines, Files, from_ranges, merge, to_ranges
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


def measured(pipeline: Pipeline) -> Files:
    """What the jobs that make the verdict found, together."""
    rows = CoverageFile.objects.filter(job__in=pipeline.latest_jobs())
    files: Files = {}
    for row in rows.iterator():
        ran, missed = from_ranges(row.covered_lines), from_ranges(row.missed_lines)
        merge(files, {row.path: FileLines(ran, missed)})
    return files


def totals(files: Files) -> tuple[int, int]:
    """(lines that can run, lines that did)."""
    covered = sum(len(one.covered) for one in files.values())
    return covered + sum(len(one.missed) for one in files.values()), covered


def by_file(pipeline: Pipeline) -> list[FileCoverage]:
    """Of each file, those with most lines missed first."""
    base = measured(pipeline.coverage_base) if pipeline.coverage_base else {}
    rows = []
    for path, found in measured(pipeline).items():
        lines, covered = totals({path: found})
        change = None
        if path in base:
            before, ran = totals({path: base[path]})
            change = percent(covered, lines) - percent(ran, before)
        rows.append(FileCoverage(path, lines, covered, to_ranges(found.missed), change))
    return sorted(rows, key=lambda one: (one.covered - one.lines, one.path))
