"""The limits that ``gantry.yml`` gives tests and services act, and say which key set them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders.errors import ImageNotFound
from builders.images.reference import Reference
from ciserver.pipelines.definition import parse
from ciserver.pipelines.runner import story
from ciserver.pipelines.runner.commit_files import PlanError
from ciserver.pipelines.runner.outcomes import next_step
from ciserver.pipelines.runner.plan import make_plan, planned
from ciserver.pipelines.runner.work import rows_after_build
from runtime.spec import MIB, Limits, Outcome, Receipt
from tests.ciserver.pipelines.test_starts import Hosted
from tests.ciserver.pipelines.workplace import Workplace, log_of

FORKS = "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 60 & done; wait"
FILES = "i=0; while [ $i -lt 3000 ]; do : > /tmp/f$i; i=$((i + 1)); done; sleep 60"
WRITES = "dd if=/dev/zero of=/tmp/big bs=1M count=200; sleep 60"
ENDED = {
    "memory": ("memory: 16m, command: 'exec tail /dev/zero'", "Out of memory"),
    "timeout": ("timeout: 1s, command: 'sleep 60'", "Out of time"),
    "pids": (f"pids: 8, command: '{FORKS}'", "Too many processes"),
    "silence": ("silence: 1s, command: 'echo once; sleep 60'", "Silent for too long"),
    "disk": (f"disk: 16m, command: '{WRITES}'", "Out of disk: disk limit"),
    "inodes": (f"inodes: 100, command: '{FILES}'", "Out of disk: limit of 100 files"),
}
SERVICES = {
    "disk": (f"disk: 16m, command: [sh, -c, '{WRITES}']", "out of disk: disk limit of 16 MiB"),
    "inodes": (f"inodes: 100, command: [sh, -c, '{FILES}']", "out of disk: limit of 100 files"),
}


@pytest.mark.root
@pytest.mark.django_db(transaction=True)
def test_each_limit_of_a_test_and_of_a_service_ends_it(workplace: Workplace) -> None:
    """A test for each, side by side."""
    small = {"memory": "64m", "cpus": "0.5", "pids": "32"}
    text = "tests:\n"
    for key, (asked, _) in ENDED.items():
        rest = ", ".join(f"{other}: {most}" for other, most in small.items() if other != key)
        text += f"  {key}: {{{asked}, {rest}}}\n"
    for key, (asked, _) in SERVICES.items():
        text += f"  with-{key}: {{command: 'true', memory: 64m, services: {{db: {{memory: 64m,"
        text += f" healthcheck: {{tcp: 1}}, {asked}}}}}}}\n"
    pipeline = workplace.run({"Dockerfile": "FROM busybox\n", "gantry.yml": text})

    jobs = {job.name: job for job in pipeline.jobs.filter(kind="test")}
    for key, (_, reason) in ENDED.items():
        job = jobs[key]
        assert job.reason.startswith(reason), (key, job.reason, log_of(job))
        assert job.place == f"gantry.yml: tests.{key}"
        assert job.hint.endswith(f"or raise `{key}` of tests.{key}.")
    for key, (_, reason) in SERVICES.items():
        job = jobs[f"with-{key}"]
        assert reason in job.reason, (key, job.reason)
        assert job.place == f"gantry.yml: tests.with-{key}.services.db"

    image = f"{workplace.workshop.config.registry}/{pipeline.project.slug}:{pipeline.commit}"
    with pytest.raises(ImageNotFound):  # only what is green is pushed
        workplace.workshop.registry.pull(Reference.parse(image), workplace.workshop.store)
    assert pipeline.digest == ""


@pytest.mark.django_db
def test_no_limit_is_beyond_what_the_installation_allows(project: Any, tmp_path: Path) -> None:
    most = Limits(
        memory=1 << 30, cpus=4, pids=500, timeout=900, silence=300, disk=1 << 30, inodes=5000
    )
    shown = {"memory": "1024m", "timeout": "900s", "silence": "300s", "disk": "1024m"}
    with closing(Hosted(project, tmp_path / "tree")) as hosted:
        for key in ("memory", "cpus", "pids", "timeout", "silence", "disk", "inodes"):
            asked = f"tests: {{unit: {{command: 'true', {key}: {getattr(most, key) + 1}}}}}\n"
            pipeline = hosted.queue(hosted.push({"Dockerfile": "FROM x\n", "gantry.yml": asked}))
            with pytest.raises(PlanError) as caught:
                make_plan(pipeline, hosted.target, most)
            assert caught.value.place == f"gantry.yml: tests.unit.{key}"
            words = shown.get(key, str(getattr(most, key)))
            assert caught.value.message == f"This installation allows at most {words}."


def test_what_is_not_said_is_what_the_installation_allows() -> None:
    most = Limits(memory=1, cpus=1, pids=1, timeout=1, silence=2, disk=3, inodes=4)
    definition = parse("tests: {unit: {services: {db: {}}}}")
    rows = rows_after_build(planned(definition, definition.tests or {}), most)
    options = next(options for kind, _, options in rows if kind == "test")
    limits = options["limits"]
    assert [limits[key] for key in ("silence", "disk", "inodes")] == [2, 3, 4]
    limits = options["services"]["db"]["limits"]
    assert [limits[key] for key in ("disk", "inodes")] == [3, 4]


@pytest.mark.parametrize(
    ("outcome", "detail", "place", "words"),
    [
        ("oom", "memory limit of 16 MiB reached", "gantry.yml: tests.a", "`memory` of tests.a."),
        ("oom", "", "compose.test.yml: services.sut", "or raise `mem_limit` there."),
        ("pids", "", "compose.test.yml: services.sut", "or raise `pids_limit` there."),
        ("timeout", "", "compose.test.yml: services.sut", "in gantry.yml with its own `timeout`."),
        ("timeout", "", "Dockerfile:7", "write the test in gantry.yml with its own `timeout`."),
        ("silent", "", "Dockerfile:7", "Have it say what it does, or"),
        ("disk", "limit of 9 files reached", "Dockerfile:7", "its own `inodes`."),
        ("output", "", "Dockerfile:7", "Have it write less."),
        ("oom", "files was killed", "gantry.yml: tests.a", "`memory` of tests.a."),
    ],
)
def test_the_next_step_names_the_key_where_it_is_written(
    outcome: str, detail: str, place: str, words: str
) -> None:
    receipt = Receipt(outcome=Outcome(outcome), exit_code=137, wall=1.0, detail=detail)
    assert next_step(receipt, place).endswith(words) or next_step(receipt, place).startswith(words)


@pytest.mark.root
@pytest.mark.django_db(transaction=True)
def test_cases_and_exit_codes_have_a_place_and_a_next_step_too(workplace: Workplace) -> None:
    report = '<testsuite><testcase classname="s" name="bad"><failure/></testcase></testsuite>'
    stage = f"FROM busybox AS test\nRUN echo '{report}' > /junit.xml\nCMD exit 4\n"
    named = "tests: {unit: {command: 'false', junit: /junit.xml}}\n"
    first = workplace.run({"Dockerfile": f"# ours\n{stage}"})
    second = workplace.run({"gantry.yml": named})
    assert second.reason == "Test unit: 1 of 1 cases failed, the first is s.bad."
    told = [(run.place, run.jobs.get(kind="test").hint) for run in (first, second)]
    assert told == [
        ("Dockerfile:2", "Its last lines are in the log."),
        (
            "gantry.yml: tests.unit",
            "What each of them said is with the cases, what they wrote in the log.",
        ),
    ]


@pytest.mark.root
@pytest.mark.django_db(transaction=True)
def test_a_pipelines_sandboxes_have_one_budget_together(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the two stays within its own memory, both do not within that of the pipeline."""
    config = replace(workplace.workshop.config, pipeline_memory=96 * MIB)
    small = replace(workplace.workshop, config=config)
    monkeypatch.setattr(story, "open_workshop", lambda: small)
    fill = "dd if=/dev/zero of=/dev/shm/x bs=8M count=7"
    definition = f"""
services:
  db:
    command: [sh, -c, "{fill} && echo up && exec sleep 60"]
    healthcheck: {{log: up}}
    memory: 80m
tests:
  unit: {{command: "{fill}", memory: 80m, services: [db]}}
  alone: {{needs: [], command: "{fill}", memory: 80m}}
"""
    pipeline = workplace.run({"Dockerfile": "FROM busybox\n", "gantry.yml": definition})
    job = pipeline.jobs.get(name="unit")
    assert job.reason.startswith("Out of memory: memory limit of 96 MiB for the whole pipeline")
    assert "GANTRY_PIPELINE_MEMORY_MIB" in job.hint
    assert pipeline.jobs.get(name="alone").state == "passed"
