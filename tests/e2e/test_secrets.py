"""A secret on its whole way: given to the jobs that name it, in no log, layer or row."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from tests.e2e.service import Repository, Service

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(600)]

VALUE = "s3kr3t-Pa+ss/Wort?42"
DOCKERFILE = """\
FROM gantry/python:3
RUN --mount=type=secret,id=TOKEN cat /run/secrets/TOKEN; base64 /run/secrets/TOKEN; \
    sha256sum < /run/secrets/TOKEN
USER 1000
"""
DEFINITION = """\
build:
  secrets: [TOKEN]
tests:
  named:
    command: |
      echo "env $TOKEN"; echo "file $(cat /run/secrets/TOKEN)"
      echo kept > /tmp/kept.txt
      test "$TOKEN" = "$(cat /run/secrets/TOKEN)" && grep -q "/run/secrets/TOKEN tmpfs" /proc/mounts
    secrets: [TOKEN]
    artifacts: {paths: [/tmp/kept.txt, /tmp/none], expire_in: 1h}
  unnamed:
    command: test -z "$TOKEN" && test ! -e /run/secrets/TOKEN/x && test ! -s /run/secrets/TOKEN
"""
FILES = {"Dockerfile": DOCKERFILE, "gantry.yml": DEFINITION}


@pytest.fixture(scope="module")
def repository(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    service.make_project("keeper")
    return Repository(tmp_path_factory.mktemp("clone") / "keeper", service, "keeper")


def test_a_secret_that_is_not_set_is_named_with_the_next_step(
    service: Service, repository: Repository
) -> None:
    commit = repository.push(FILES)
    pipeline = service.pipeline_of("keeper", commit)
    assert pipeline["state"] == "failed"
    assert pipeline["place"] == "gantry.yml: build.secrets"
    assert "keeper has no secret 'TOKEN'" in pipeline["reason"]
    assert "gantry secrets set keeper TOKEN" in pipeline["jobs"][0]["hint"]


def test_jobs_that_name_a_secret_get_it_and_nothing_shows_it(
    service: Service, repository: Repository
) -> None:
    answer = service.http.put("projects/keeper/secrets/TOKEN/", json={"value": VALUE})
    assert answer.status_code == 200
    pipeline = service.pipeline_of("keeper", repository.push(FILES | {"note": "again"}))
    logs = "\n".join(map(service.log_of, pipeline["jobs"]))
    assert pipeline["state"] == "passed", logs
    assert "env ***" in logs
    assert "file ***" in logs
    (artifact,) = [found for job in pipeline["jobs"] for found in job["artifacts"]]
    assert artifact["path"] == "/tmp/kept.txt"
    assert service.http.get(f"artifacts/{artifact['id']}/").text == "kept\n"
    assert "No artifact at /tmp/none." in logs
    needles = [VALUE.encode(), base64.b64encode(VALUE.encode())[:-3], VALUE.encode().hex().encode()]
    assert not [needle for needle in needles if needle in logs.encode()]
    for folder in ("logs", "db", "store", "sandboxes", "registry"):
        for needle in needles:
            words = ["grep", "-rlFa", "--", needle.decode(), str(service.home / folder)]
            found = subprocess.run(words, capture_output=True, text=True, check=False)
            assert found.stdout == ""
    assert not list(Path("/dev/shm").glob("gantry-secrets-*"))
