"""What every test is told of its pipeline, and which of the reports that it leaves are read."""

from __future__ import annotations

import pytest

from tests.ciserver.pipelines.workplace import Workplace, log_of

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]

WRITE = """#!/bin/sh
set -e
env
mkdir -p a/deep b
for n in $(seq 250); do echo "<testsuite><testcase name='n$n'/></testsuite>" > a/deep/$n.xml; done
echo "<testsuite><testcase name='of b'/></testsuite>" > b/one.xml
printf '<testsuite>\xff' > b/broken.xml
touch "$(printf 'b/odd\\377.xml')" "$(printf 'b/Cancelled.\\n.xml')"
"""
FILES = {
    "Dockerfile": "FROM busybox\nWORKDIR /w\nCOPY write /\nENV CI=of-the-image\n",
    "write": WRITE,
    "gantry.yml": """
tests:
  unit:
    command: sh /write
    memory: 64m
    environment: {GANTRY_TAG: of-the-test}
    junit: ["a/**/*.xml", "b/*.xml", none.xml]
    artifacts: {paths: [b]}
""",
}


def test_variables_tell_of_the_pipeline_and_reports_are_found_or_missed_aloud(
    workplace: Workplace,
) -> None:
    pipeline = workplace.run(FILES, ref="refs/heads/release/1", event="manual")
    job = pipeline.jobs.get(name="unit")
    assert job.state == "passed", job.reason
    log = log_of(job)
    told = dict(line[6:].split("=", 1) for line in log.splitlines() if line.startswith("1 out "))
    expected = {
        "CI": "true",
        "GANTRY_PROJECT": "hello",
        "GANTRY_PIPELINE": str(pipeline.number),
        "GANTRY_COMMIT": pipeline.commit,
        "GANTRY_REF": "refs/heads/release/1",
        "GANTRY_BRANCH": "release/1",
        "GANTRY_TAG": "of-the-test",
        "GANTRY_EVENT": "manual",
        "GANTRY_PULL_REQUEST": "",
        "GANTRY_TRY": "1",
    }
    assert {name: told[name] for name in expected} == expected
    assert {name for name in told if name.startswith("GANTRY_")} < expected.keys()
    names = set(job.cases.values_list("name", flat=True))
    assert names == {"of b", *(f"n{n}" for n in range(1, 251))}
    assert "The report /w/b/broken.xml cannot be read: not XML" in log
    assert "No JUnit report at none.xml." in log
    assert "2 of: JUnit report. The first is '/w/b/Cancelled.\\n.xml'." in log
    assert [one.path for one in job.artifacts.all()] == ["/w/b/broken.xml", "/w/b/one.xml"]
