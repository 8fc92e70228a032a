"""gantry artifacts and the secrets of environments."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from ciserver.pipelines.models import Artifact, Job
from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def artifact(history: Any) -> Artifact:
    job = Job.objects.filter(pipeline__project=history, pipeline__number=1).order_by("-pk")[0]
    data = b"coverage" * 100_000
    made = Artifact.objects.create(
        job=job,
        path="/tmp/../etc/cov.xml",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        expires_at=timezone.now() + timedelta(days=1),
    )
    made.file.parent.mkdir(parents=True, exist_ok=True)
    made.file.write_bytes(data)
    return made


def test_they_are_listed_and_fetched_whole(
    logged_in: Gantry, artifact: Artifact, tmp_path: Path
) -> None:
    rows = json.loads(logged_in("artifacts", "list", "hello", "1", "--json").out)
    assert [row["path"] for row in rows] == [artifact.path]
    ran = logged_in("artifacts", "download", "hello", "1", "--into", str(tmp_path / "out"))
    assert ran.exit_code == 0
    target = tmp_path / "out" / artifact.job.name / "tmp" / "etc" / "cov.xml"
    assert target.read_bytes() == artifact.file.read_bytes()


def test_what_is_not_there_or_did_not_arrive_is_told(
    logged_in: Gantry, artifact: Artifact, tmp_path: Path
) -> None:
    ran = logged_in("artifacts", "download", "hello", "1", "--path", "/none")
    assert (ran.exit_code, "no such artifact" in ran.err) == (4, True)
    artifact.file.write_bytes(b"less")
    ran = logged_in("artifacts", "download", "hello", "1", "--into", str(tmp_path))
    assert ran.exit_code == 5
    assert "did not arrive as it was kept" in ran.err
    assert not list(tmp_path.rglob("cov.xml"))


def test_secrets_of_an_environment(logged_in: Gantry, history: Any, tmp_path: Path) -> None:
    value = tmp_path / "value"
    value.write_text("hunter2-hunter2")
    ran = logged_in("secrets", "set", "hello", "TOKEN", "--env", "qa", "--file", str(value))
    assert (ran.exit_code, "qa of hello has the secret TOKEN." in ran.out) == (0, True)
    assert "TOKEN" in logged_in("secrets", "list", "hello", "--env", "qa").out
    assert "TOKEN" not in logged_in("secrets", "list", "hello").out
    assert logged_in("secrets", "remove", "hello", "TOKEN", "--env", "qa").exit_code == 0
    assert logged_in("secrets", "list", "hello", "--env", "none").exit_code == 4
