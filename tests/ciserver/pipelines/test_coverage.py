"""Coverage: both formats, what several reports say together, and the change against the base."""

from __future__ import annotations

from typing import Any

import pytest

from ciserver.lib.crypto import Secret
from ciserver.lib.masking import Masker
from ciserver.pipelines.coverage import by_file
from ciserver.pipelines.coverage_reports import (
    CoverageError,
    FileLines,
    from_ranges,
    lines_of,
    merge,
    parse,
    to_ranges,
)
from ciserver.pipelines.runner import coverage as runner_coverage
from ciserver.projects.badges import badge_path
from tests.ciserver.pipelines.workplace import Workplace, log_of, run_git

COBERTURA = b"""<?xml version="1.0" ?>
<!DOCTYPE coverage SYSTEM 'http://cobertura.sourceforge.net/xml/coverage-04.dtd'>
<coverage line-rate="0.5"><sources><source>/srv</source></sources><packages><package name="a">
<classes><class name="x" filename="./a/x.py"><methods><method name="f"><lines>
<line number="2" hits="0"/></lines></method></methods>
<lines><line number="1" hits="3"/><line number="2" hits="0"/><line number="4" hits="1"/></lines>
</class></classes></package></packages></coverage>"""
LCOV = b"TN:\nSF:a/x.py\nFN:1,f\nDA:2,1\nDA:5,0\nDA:6,0,abc\nLF:3\nend_of_record\nSF:b.c\nDA:1,-1\n"


def test_cobertura_tells_which_lines_ran() -> None:
    assert parse(COBERTURA) == {"a/x.py": FileLines({1, 4}, {2})}


def test_lcov_tells_which_lines_ran() -> None:
    found = parse(LCOV)
    assert found["a/x.py"] == FileLines({2}, {5, 6})
    assert set(found) == {"a/x.py", "b.c"}


def test_a_line_that_any_report_saw_run_ran() -> None:
    files = parse(COBERTURA)
    merge(files, parse(LCOV))
    assert files["a/x.py"] == FileLines({1, 2, 4}, {5, 6})
    assert lines_of(files) == sum(len(one.covered | one.missed) for one in files.values())


def test_any_encoding_is_read_and_an_unknown_one_said() -> None:
    wide = COBERTURA.decode().replace('?xml version="1.0"', '?xml version="1.0" encoding="utf-16"')
    assert parse(wide.encode("utf-16")) == parse(COBERTURA)
    with pytest.raises(CoverageError, match="encoding"):
        parse(b'<?xml version="1.0" encoding="nonsense"?><a/>')


def test_lines_are_kept_as_ranges() -> None:
    assert to_ranges({7, 1, 2, 3, 9, 10}) == "1-3,7,9-10"
    assert from_ranges("1-3,7,9-10") == {1, 2, 3, 7, 9, 10}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "tells of no file"),
        (b"hello", "tells of no file"),
        (b"<a>", "not XML"),
        (b"<a>" * 101, "more than 100 elements within one another"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "not allowed"),
        (b"".join(b"SF:%d\nDA:1,1\n" % n for n in range(10_001)), "more than 10000 files"),
    ],
)
def test_what_is_no_report_is_said(data: bytes, words: str) -> None:
    with pytest.raises(CoverageError, match=words):
        parse(data)


def test_reports_have_a_number_of_lines_together() -> None:
    data = b"SF:a\n" + b"".join(b"DA:%d,1\n" % n for n in range(1, 12))
    assert lines_of(parse(data, most=11)) == 11
    with pytest.raises(CoverageError, match="more than"):
        parse(data, most=10)


def test_absurd_lines_are_passed_over() -> None:
    assert parse(b"SF:a\nDA:99999999999,1\nDA:0,1\nDA:x,1\nDA:3,1\n")["a"] == FileLines({3}, set())


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b"a\0b", "a\ufffdb"),  # PostgreSQL holds no zero byte
        (b"\xff.py", "\ufffd.py"),
        (b"C:\\src\\a.py", "C:/src/a.py"),
        (b" ./a/../b//c.py \r", "b/c.py"),
        (b"../../etc/passwd", "../../etc/passwd"),  # a name, never opened
        (b"", "."),
        (b"x" * 600, "x" * 500),
    ],
)
def test_odd_paths_are_names_that_a_row_holds(written: bytes, kept: str) -> None:
    assert list(parse(b"SF:" + written + b"\nDA:1,1\n")) == [kept]


def test_a_secret_in_a_path_is_taken_out_before_this_is_cut() -> None:
    masker = Masker([Secret("hunter2-secret")])
    found = parse(b"SF:/hunter2-secret/" + b"x" * 490 + b"\nDA:1,1\n", masker.mask_text)
    assert list(found) == ["/***/" + "x" * 490]


FILES = {
    "Dockerfile": "FROM busybox\nCOPY report /report\n",
    "gantry.yml": "tests: {unit: {command: 'true', coverage: [/report, /none], memory: 64m}}\n",
}


@pytest.mark.root
@pytest.mark.django_db(transaction=True)
def test_a_pipeline_has_its_figure_and_the_change_against_the_commit_it_left(
    workplace: Workplace, client: Any, api: Any, alice: Any
) -> None:
    first = workplace.run(FILES | {"report": "SF:a\nDA:1,1\nDA:2,0\n"})
    assert (first.state, first.coverage, first.coverage_base) == ("passed", 50, None)
    assert "No coverage report at /none." in log_of(first.jobs.get(name="unit"))
    second = workplace.run({"report": "SF:a\nDA:1,1\nDA:2,1\nDA:3,1\nDA:4,0\nSF:b\nDA:1,0\n"})
    assert (second.coverage, second.coverage_base, second.coverage_change) == (60, first, 10)
    run_git(workplace.tree({}), "reset", "--quiet", "--hard", "HEAD~1")
    branch = workplace.run({"report": "SF:a\nDA:1,0\nDA:2,0\n"}, ref="refs/heads/topic")
    assert (branch.coverage, branch.coverage_base) == (0, first)

    rows = api.get(f"/api/v1/pipelines/{second.pk}/coverage/").json()["files"]
    assert [(row["path"], row["percent"], row["missed"], row["change"]) for row in rows] == [
        ("a", 75, "4", 25),
        ("b", 0, "1", None),
    ]
    assert api.get(f"/api/v1/pipelines/{second.pk}/").json()["coverage_change"] == 10
    client.force_login(alice)
    page = client.get(f"{second.get_absolute_url()}coverage/").content.decode()
    assert "3 of 5 lines ran" in page
    assert "+10.0 points" in client.get(second.get_absolute_url()).content.decode()
    badge = client.get(f"{badge_path(workplace.project)}?of=coverage").content.decode()
    assert "coverage: 60%" in badge


@pytest.mark.root
@pytest.mark.django_db(transaction=True)
def test_lines_of_all_jobs_together_have_a_number_and_merge_by_file(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_coverage, "MOST_LINES", 8)
    jobs = "".join(
        f"  {name}: {{command: cp /{name} /report, coverage: /report, memory: 64m{needs}}}\n"
        for name, needs in (("a", ""), ("b", ", needs: a"), ("c", ", needs: b"))
    )
    pipeline = workplace.run(
        {
            "Dockerfile": "FROM busybox\nCOPY a b c /\n",
            "a": "SF:x\nDA:1,1\nDA:2,0\nDA:3,0\nSF:y\nDA:7,1\n",
            "b": "SF:x\nDA:2,1\nDA:4,0\n",
            "c": "SF:z\nDA:1,0\nDA:2,0\nDA:3,0\n",
            "gantry.yml": f"tests:\n{jobs}",
        }
    )
    assert pipeline.state == "passed", pipeline.reason
    told = [(one.path, one.covered, one.lines, one.missed) for one in by_file(pipeline)]
    assert told == [("x", 2, 4, "3-4"), ("y", 1, 1, "")]
    assert (pipeline.coverage_covered, pipeline.coverage_lines) == (3, 5)
    assert "more than 2000000 lines of the whole pipeline" in log_of(pipeline.jobs.get(name="c"))


SHAKY = """#!/bin/sh
if [ "$GANTRY_TRY" = 1 ]; then fault="<failure/>"; fi
echo "<testsuite><testcase classname='s' name='shaky'>$fault</testcase></testsuite>" > /junit.xml
[ -z "$fault" ]
"""


@pytest.mark.root
@pytest.mark.django_db(transaction=True)
def test_cases_of_an_earlier_try_stay_and_make_the_test_flaky(
    workplace: Workplace, client: Any, api: Any, alice: Any
) -> None:
    """It really fails once, and really passes when it is tried again."""
    pipeline = workplace.run(
        {
            "Dockerfile": "FROM busybox\nCOPY shaky /\n",
            "shaky": SHAKY,
            "gantry.yml": "tests: {unit: {command: sh /shaky, junit: /junit.xml, retries: 1}}\n",
        }
    )
    job = pipeline.jobs.get(name="unit")
    assert (pipeline.state, job.state, job.reason) == ("passed", "passed", "")
    assert [step.receipt["exit_code"] for step in job.steps.all()] == [1, 0]
    assert "1 of 1 cases failed, the first is s.shaky. Trying again (1 of 1)." in log_of(job)
    cases = list(job.cases.order_by("pk").values_list("outcome", "superseded"))
    assert cases == [("failed", True), ("passed", False)]
    rows = api.get(f"/api/v1/cases/?pipeline={pipeline.number}").json()["results"]
    assert len(rows) == 2
    client.force_login(alice)
    page = client.get(pipeline.get_absolute_url()).content.decode()
    assert "It failed before, at the same commit" in page
    history = client.get("/projects/hello/tests/").content.decode()
    assert "shaky" in history
