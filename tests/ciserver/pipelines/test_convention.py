"""Without ``tests`` a stage named test is the test, with what else ``gantry.yml`` says for it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ciserver.pipelines.definition import DefinitionError, parse
from ciserver.pipelines.runner.commit_files import PlanError
from ciserver.pipelines.runner.plan import NO_TEST, Plan, make_plan
from runtime.spec import MIB, Limits
from tests.ciserver.pipelines.test_starts import Hosted
from tests.ciserver.pipelines.workplace import Workplace, log_of

pytestmark = pytest.mark.django_db(transaction=True)

DOCKERFILE = """
FROM busybox AS base
RUN echo 'hosts: files' > /etc/nsswitch.conf
FROM base AS web
COPY page /www/index.html
CMD ["httpd", "-f", "-p", "8080", "-h", "/www"]
FROM base AS test
CMD ["sh", "-c", "wget -q -O - http://web:8080/; echo level $GANTRY_INPUT_LEVEL; exit $FAIL"]
FROM base
"""
SERVICE = "services: {web: {stage: web, memory: 64m, healthcheck: {tcp: 8080}}}\n"
INPUT = "inputs: {level: {default: low}}\n"
MOST = Limits(memory=512 * MIB, cpus=4.0, pids=256, timeout=3600.0)
SUT = "services: {sut: {image: x, command: 'true'}}"


def plan_of(project: Any, tree: Path, files: dict[str, str], most: Limits = MOST) -> Plan:
    with closing(Hosted(project, tree)) as hosted:
        return make_plan(hosted.queue(hosted.push(files)), hosted.target, most)


@pytest.mark.root
def test_it_has_the_services_and_the_inputs_of_the_file(workplace: Workplace) -> None:
    files = {"Dockerfile": DOCKERFILE, "page": "hello\n", "gantry.yml": SERVICE + INPUT}
    pipeline = workplace.run(files, inputs={"level": "high"})
    assert (pipeline.state, pipeline.reason) == ("passed", "")
    log = log_of(pipeline.jobs.get(name="test"))
    assert "out hello" in log
    assert "out level high" in log


def test_its_place_is_the_line_of_its_stage_and_that_of_a_service_its_key(
    project: Any, tmp_path: Path
) -> None:
    files = {"Dockerfile": DOCKERFILE, "gantry.yml": SERVICE + INPUT}
    plan = plan_of(project, tmp_path / "tree", files)
    assert plan.places == {"test": "Dockerfile:7"}
    assert plan.services["test"]["web"].place == "gantry.yml: services.web"
    assert plan.inputs == {"level": "low"}
    assert plan.notices == ()


def test_a_compose_file_has_services_of_its_own_and_the_inputs(
    project: Any, tmp_path: Path
) -> None:
    files = {"Dockerfile": "FROM scratch\n", "gantry.yml": SERVICE + INPUT, "compose.test.yml": SUT}
    files["gantry.yml"] = files["gantry.yml"].replace("stage: web", "image: x")
    plan = plan_of(project, tmp_path / "tree", files)
    assert plan.services == {"sut": {}}
    assert plan.tests["sut"].environment == {"GANTRY_INPUT_LEVEL": "low"}
    assert plan.notices == (NO_TEST,)


def test_what_it_may_not_have_is_told_at_its_stage(project: Any, tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        files = {"Dockerfile": "FROM scratch AS test\n"}
        plan_of(project, tmp_path / "tree", files, replace(MOST, memory=256 * MIB))
    assert caught.value.place == "Dockerfile:1"
    assert "write the test in gantry.yml, with stage: test" in caught.value.hint


def test_no_more_services_than_a_test_may_have() -> None:
    services = f"services: {{{', '.join(f's{n}: {{image: x}}' for n in range(17))}}}"
    assert len(parse(f"{services}\ntests: {{}}").services) == 17
    with pytest.raises(DefinitionError, match="at most 16 services, and without 'tests' all"):
        parse(services)
