"""gantry coverage: the figure, and the files."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ciserver.pipelines.models import CoverageFile, Job, Pipeline
from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_files_with_most_missed_come_first(logged_in: Gantry, history: Any) -> None:
    row = Pipeline.objects.get(project=history, number=1)
    job = Job.objects.filter(pipeline=row).order_by("-pk")[0]
    CoverageFile.objects.create(job=job, path="a.py", covered_lines="1-9", missed_lines="10")
    CoverageFile.objects.create(job=job, path="b.py", covered_lines="1", missed_lines="2-4")
    Pipeline.objects.filter(pk=row.pk).update(coverage_lines=14, coverage_covered=10)
    ran = logged_in("coverage", "hello", "1")
    assert ran.exit_code == 0
    assert ran.out.index("b.py") < ran.out.index("a.py")
    assert "71.4 %" in ran.out + ran.err
    found = json.loads(logged_in("coverage", "hello", "1", "--json").out)
    assert [one["missed"] for one in found["files"]] == ["2-4", "10"]


def test_without_a_report_it_says_how_to_name_one(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("coverage", "hello", "1")
    assert "tests.NAME.coverage" in ran.out + ran.err
