"""``compose.test.yml``: sut and what it depends on, and each key that cannot be."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ciserver.pipelines.compose import ComposeError, ComposeTests, read_compose
from ciserver.pipelines.definition import Build
from ciserver.pipelines.runner.commit_files import PlanError
from ciserver.pipelines.runner.plan import Plan, make_plan
from runtime.spec import Limits
from tests.ciserver.pipelines.test_starts import Hosted
from tests.ciserver.pipelines.workplace import Workplace, log_of


def read(text: str, **main: str) -> ComposeTests:
    return read_compose(text.encode(), file="compose.test.yml", main=Build(**main))


def test_what_composes_words_mean_here() -> None:
    found = read(
        """
version: "3.8"
x-note: anything
services:
  sut:
    build: {context: ., target: tests}
    command: ./run.sh --fast
    environment: ["MODE=${MODE:-quick}", "PRICE=5$$"]
    depends_on: {db: {condition: service_healthy}, migrate: {condition:
      service_completed_successfully}}
  db:
    image: postgres:15
    ports: ["5432:5432"]
    volumes: [data:/var/lib/postgresql/data]
    restart: always
    healthcheck: {test: [CMD, pg_isready], interval: 500ms, timeout: 1m30s, retries: 5}
    deploy: {resources: {limits: {memory: 64m, cpus: "0.5"}}}
  migrate: {build: ./migrate, depends_on: [db], mem_limit: 32m}
  cache: {image: redis}
volumes: {data: {}}
"""
    )
    test = found.test
    assert (test.image, test.stage, test.command) == (None, "tests", "./run.sh --fast")
    assert test.environment == {"MODE": "quick", "PRICE": "5$"}
    assert test.depends_on["migrate"].condition == "service_completed_successfully"
    db = found.services["db"]
    assert db.healthcheck is not None
    assert (db.healthcheck.timeout, db.healthcheck.longest) == (90, 5)
    assert (db.memory, db.cpus) == (64 << 20, 0.5)
    assert found.services["migrate"].depends_on["db"].condition == "service_started"
    assert found.builds["migrate"].context == "migrate"
    assert not found.builds["migrate"].release
    assert [notice.partition(": ")[2] for notice in found.notices] == [
        "services.db.ports is left out: a test reaches services by their names, on their own"
        " ports.",
        "services.db.volumes is left out: each container begins empty.",
        "services.cache is not started: sut does not depend on it.",
    ]


@pytest.mark.parametrize(
    ("text", "place", "words", "hint"),
    [
        ("services: {db: {image: x}}", ":1: services", "no service 'sut'", "'sut'"),
        ("a: 1", ": services", "no services", ""),
        ("services: {sut: {image: x}}\nservies: {}", ":2: servies", "not understood", "'services'"),
        ("services: {sut: {}}", ":1: services.sut", "neither 'image' nor 'build'", ""),
        (
            "services:\n  sut:\n    image: x\n    comand: y",
            ":4: services.sut.comand",
            "no key",
            "'command'",
        ),
        (
            "services:\n  sut:\n    image: x\n    privileged: true",
            ":4: services.sut.privileged",
            "not possible",
            "never privileged",
        ),
        (
            "services: {sut: {image: x, volumes: ['.:/src']}}",
            ":1: services.sut.volumes",
            "cannot be mounted",
            "COPY",
        ),
        ("services: {sut: {image: 'x:$TAG'}}", ":1: services.sut.image", "TAG has no", "${TAG:-"),
        ("services: {sut: {image: x, depends_on: [db]}}", ":1: services.sut", "service 'db'", ""),
        ("services: {sut: {build: ../x}}", ":1: services.sut.build", "not in this", "folder"),
        ("services: {sut: {image: x, command: 5}}", ":1: services.sut.command", "a list", ""),
        ("a: &a {}\nb: *a", ":2", "alias", "Write it out"),
        ("services: [", ":1", "", ""),
    ],
)
def test_what_cannot_be_is_named_with_its_line_and_what_to_do(
    text: str, place: str, words: str, hint: str
) -> None:
    with pytest.raises(ComposeError) as caught:
        read(text)
    assert caught.value.place == f"compose.test.yml{place}"
    assert words in caught.value.message
    assert hint in caught.value.hint


ONE = {"Dockerfile": "FROM scratch\n"}
TWO = {
    "web/Dockerfile": "FROM scratch AS base\nFROM base AS tests\n",
    "worker/Dockerfile": "FROM scratch\n",
    "gantry.yml": "images: {worker: {context: worker}, web: {context: web}}",
}


def plan_of(project: Any, tree: Path, files: dict[str, str]) -> Plan:
    with closing(Hosted(project, tree)) as hosted:
        return make_plan(
            hosted.queue(hosted.push(files)), hosted.target, Limits(cpus=4.0, timeout=3600.0)
        )


@pytest.mark.parametrize(("files", "name"), [(ONE, "main"), (TWO, "web"), (TWO, "worker")])
def test_no_service_takes_the_place_of_an_image_that_is_released(
    project: Any, tmp_path: Path, files: dict[str, str], name: str
) -> None:
    text = f"services:\n  sut: {{image: x, depends_on: [{name}]}}\n  {name}:\n    build: other"
    with pytest.raises(PlanError) as caught:
        plan_of(project, tmp_path / "tree", {**files, "compose.test.yml": text})
    assert caught.value.place == f"compose.test.yml:4: services.{name}.build"
    assert f"{name!r} is the name of an image of this project" in caught.value.message
    assert "Call the service something else" in caught.value.hint


def test_a_service_that_builds_an_image_of_the_project_as_it_is_built_runs_that_one(
    project: Any, tmp_path: Path
) -> None:
    text = """
services:
  sut: {build: {context: web, target: tests}, depends_on: [web]}
  web: {build: {context: ./web, target: base}}
"""
    plan = plan_of(project, tmp_path / "tree", {**TWO, "compose.test.yml": text})
    assert plan.released == ("worker", "web")
    assert plan.own_image(plan.services["sut"]["web"].service) == ("web", "base")
    assert plan.own_image(plan.tests["sut"]) == ("sut", "tests")


@pytest.mark.root
@pytest.mark.django_db(transaction=True)
def test_a_compose_file_alone_is_a_test_with_its_services(workplace: Workplace) -> None:
    pipeline = workplace.run(
        {
            "Dockerfile": 'FROM busybox\nENTRYPOINT ["echo", "entry:"]\n',
            "web/Dockerfile": 'FROM busybox\nCOPY page /www/\nCMD ["httpd", "-f", "-h", "/www"]\n',
            "web/page": "from compose\n",
            "docker-compose.test.yml": """
services:
  sut:
    build: .
    entrypoint: [sh, -c]
    command: ["wget -q -O - http://web/page"]
    depends_on: {web: {condition: service_healthy}}
  web:
    build: web
    healthcheck: {test: wget -q -O - http://127.0.0.1/page, interval: 1s}
    tmpfs: /tmp
""",
        }
    )
    assert (pipeline.state, pipeline.reason) == ("passed", "")
    jobs = {job.name: job for job in pipeline.jobs.all()}
    assert list(jobs) == ["build main", "build web", "sut", "push"]
    assert "out from compose" in log_of(jobs["sut"])
    assert "docker-compose.test.yml: services.web.tmpfs is left out" in log_of(jobs["build main"])
    assert (pipeline.images, pipeline.repository.count("/")) == ({}, 1)


@pytest.mark.root
@pytest.mark.django_db(transaction=True)
def test_its_command_follows_the_images_entrypoint(workplace: Workplace) -> None:
    pipeline = workplace.run(
        {
            "Dockerfile": 'FROM busybox\nENTRYPOINT ["echo", "entry:"]\n',
            "compose.test.yml": "services: {sut: {build: ., command: two words}}",
        }
    )
    assert "out entry: two words" in log_of(pipeline.jobs.get(name="sut"))
