"""What every test is told of its pipeline, and which of the reports that it leaves are read."""

from __future__ import annotations

import pytest

from ciserver.pipelines import junit
from ciserver.pipelines.runner import test
from tests.ciserver.pipelines.workplace import Workplace, log_of

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]

WRITE = """#!/bin/sh
set -e
env
grep -E '^Cap(Eff|Bnd)' /proc/self/status
mkdir -p a/deep b
for n in $(seq 250); do echo "<testsuite><testcase name='n$n'/></testsuite>" > a/deep/$n.xml; done
echo "<testsuite><testcase name='of b'/></testsuite>" > b/one.xml
printf '<testsuite>\xff' > b/broken.xml
touch "$(printf 'b/odd\\377.xml')" "$(printf 'b/Cancelled.\\n.xml')"
"""
# As many as Moby gives but mknod, net_raw and audit_write, and in a user namespace.
CAPABILITIES = [f"{name}:\t00000000800405fb" for name in ("CapEff", "CapBnd")]
FILES = {
    "Dockerfile": "FROM busybox\nWORKDIR /w\nCOPY write /\nENV CI=of-the-image\n"
    "RUN grep -E '^Cap(Eff|Bnd)' /proc/self/status\n",
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
    said = [line[6:] for line in log.splitlines() if line.startswith("1 out ")]
    assert [line for line in said if line.startswith("Cap")] == CAPABILITIES
    built = log_of(pipeline.jobs.get(name="build")).splitlines()
    assert [line.partition("out ")[2] for line in built if "out Cap" in line] == CAPABILITIES
    told = dict(line.split("=", 1) for line in said if "=" in line)
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
    assert "2 files are left out (JUnit report)" in log
    assert "The first is '/w/b/Cancelled.\\n.xml'." in log
    assert [one.path for one in job.artifacts.all()] == ["/w/b/broken.xml", "/w/b/one.xml"]


def test_what_the_cases_of_a_pipeline_say_has_an_end(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test, "MOST_WORDS", 25)
    monkeypatch.setattr(junit, "MOST_OF_PIPELINE", 6)
    case = "<testcase name='x'><failure message='ten letter'/></testcase>"
    write = f'echo "<a>{case}<testcase/>{case}</a>" > /r.xml'
    one = f"{{command: '{write.replace(chr(39), chr(39) * 2)}', memory: 64m, junit: /r.xml}}"
    chain = f"  b: {{needs: a, {one[1:]}\n  c: {{needs: b, {one[1:]}\n"
    pipeline = workplace.run(
        {"Dockerfile": "FROM busybox\n", "gantry.yml": f"tests:\n  a: {one}\n{chain}"}
    )
    assert pipeline.state == "passed", pipeline.reason
    jobs = {job.name: job for job in pipeline.jobs.filter(kind="test")}
    messages = [[case.message for case in job.cases.all()] for job in jobs.values()]
    assert messages == [["ten letter", "", "ten letter"], ["", "", ""], []]
    assert [job.cases_left_out for job in jobs.values()] == [0, 0, 3]
    assert "What 2 of the cases say is not kept" in log_of(jobs["b"])
    assert "3 test cases are not kept: 20000 of a job and 6 of a pipeline" in log_of(jobs["c"])


KEYS = {
    "ops/Web.dockerfile": """
FROM busybox AS app
ARG FLAVOUR
ARG SIZE=small
COPY word /
RUN echo "$FLAVOUR $SIZE" > /made
FROM app AS other
RUN echo other > /other
""",
    "ops/word": "of the context\n",
    "gantry.yml": """
build:
  context: ops
  dockerfile: Web.dockerfile
  target: app
  args: {FLAVOUR: sour, SIZE: 12}
services:
  near:
    user: "77"
    working_dir: /tmp
    entrypoint: [sh, -c]
    command: ["echo service $(id -u) $(pwd) $COLOUR; exec sleep 60"]
    environment: [COLOUR=blue]
    healthcheck: {log: service}
    memory: 64m
tests:
  unit:
    command: "cat /word /made; test ! -e /other; echo $? $(id -u) $(pwd)"
    user: "1234"
    working_dir: /srv/x
    services: [near]
    memory: 64m
  front: {entrypoint: [echo, in], command: [front], memory: 64m}
  other: {stage: other, command: "cat /other", memory: 64m}
""",
}


def test_what_gantry_yml_says_of_a_container_holds_in_it(workplace: Workplace) -> None:
    pipeline = workplace.run(KEYS)
    assert pipeline.state == "passed", pipeline.reason
    logs = {job.name: log_of(job).splitlines() for job in pipeline.jobs.filter(kind="test")}
    assert "1 out service 77 /tmp blue" in logs["unit"]
    told = [line for line in logs["unit"] if line.startswith("2 out ")]
    assert told == ["2 out of the context", "2 out sour 12", "2 out 0 1234 /srv/x"]
    assert "1 out in front" in logs["front"]
    assert "1 out other" in logs["other"]
