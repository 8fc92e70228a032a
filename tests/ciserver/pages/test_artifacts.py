"""Artifacts: kept until they expire, fetched by members alone, saved and never shown."""

from __future__ import annotations

import shutil
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from ciserver.lib.crypto import Secret
from ciserver.lib.masking import Masker
from ciserver.pipelines.definition import Artifacts
from ciserver.pipelines.models import Artifact, Job
from ciserver.pipelines.runner import artifacts
from ciserver.pipelines.runner.expiry import forget_expired
from tests.conftest import api_as


class Log:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.masker = Masker()

    def say(self, text: str) -> None:
        self.said.append(text)


class Files:
    """The two things that a container is asked here."""

    def __init__(self, **files: bytes) -> None:
        self.files = {f"/{name}": data for name, data in files.items()}

    def glob(self, pattern: str, *, below: bool = False) -> list[str]:
        return [path for path in self.files if pattern in (path, "*")]

    def read_file(self, path: str, most: int) -> bytes:
        if len(self.files[path]) > most:
            raise OSError(27, "File too large", path)
        return self.files[path]


@pytest.fixture
def job(hello: Any) -> Job:
    return Job.objects.get(pipeline__project=hello, pipeline__number=5, position=2)


def keep(job: Job, files: Files, *paths: str, seconds: float = 60, secret: str = "") -> Log:
    log = Log()
    log.masker = Masker([Secret(secret)] if secret else [])
    wanted = Artifacts(paths=list(paths), expire_in=seconds)
    run: Any = SimpleNamespace(job=job, log=log)
    container: Any = files
    artifacts.keep_artifacts(run, wanted, container)
    return log


def test_a_kept_file_is_on_the_page_and_in_the_api(job: Job, alice: Any, sign_in: Any) -> None:
    keep(job, Files(report=b"<b>all well</b>"), "/report")
    artifact = Artifact.objects.get()
    url = f"/projects/hello/pipelines/5/artifacts/{artifact.pk}"
    client = sign_in(alice)
    assert f'href="{url}"' in client.get("/projects/hello/pipelines/5/").content.decode()
    for answer in (client.get(url), api_as(alice).get(f"/api/v1/artifacts/{artifact.pk}/")):
        assert b"".join(answer.streaming_content) == b"<b>all well</b>"
        assert answer["Content-Type"] == "application/octet-stream"
        assert answer["Content-Disposition"] == 'attachment; filename="report"'
        assert answer["X-Content-Type-Options"] == "nosniff"
    row = api_as(alice).get(f"/api/v1/pipelines/{job.pipeline_id}/").json()["jobs"][1]
    assert [(item["path"], item["size"]) for item in row["artifacts"]] == [("/report", 15)]


def test_a_stranger_gets_nothing(job: Job, charlie: Any, sign_in: Any) -> None:
    keep(job, Files(report=b"x"), "/report")
    pk = Artifact.objects.get().pk
    assert sign_in(charlie).get(f"/projects/hello/pipelines/5/artifacts/{pk}").status_code == 404
    assert api_as(charlie).get(f"/api/v1/artifacts/{pk}/").status_code == 404


def test_what_cannot_be_kept_is_said(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MOST_BYTES", 10)
    log = keep(job, Files(big=b"x" * 11, small=b"x" * 10), "*", "/none")
    assert log.said == [
        "No artifact at /none.",
        "The artifact /big was not kept: File too large",
        "Kept /small, 10 B.",
    ]


def test_a_disk_that_takes_nothing_fails_no_job(job: Job) -> None:
    place = Artifact(job=job).file.parent
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)  # of an earlier test's job of the same number
    place.write_text("no folder")
    try:
        log = keep(job, Files(a=b"x"), "*")
    finally:
        place.unlink()
    assert log.said == ["The artifact /a was not kept: File exists"]
    assert not Artifact.objects.exists()


def test_no_name_tells_a_secret(job: Job) -> None:
    names = ["of-hunter2-secret.txt", "aHVudGVyMi1zZWNyZXQ", "x" * 490 + "hunter2-secret"]
    keep(job, Files(**dict.fromkeys(names, b"x")), "*", secret="hunter2-secret")
    assert [artifact.path for artifact in Artifact.objects.all()] == ["/***Q", "/of-***.txt"]


def test_names_that_no_row_can_hold_are_told_and_forge_no_line(job: Job) -> None:
    odd = ["a\nCancelled.", "b\x1b[2J", "c\udcff", "x" * 600]
    log = keep(job, Files(**dict.fromkeys([*odd, "good"], b"x")), "*")
    assert [artifact.path for artifact in Artifact.objects.all()] == ["/good"]
    assert log.said[0].startswith("4 files are left out (artifact), as their names have")
    assert log.said[0].endswith("The first is '/a\\nCancelled.'.")
    assert all(line.isprintable() for line in log.said)


def test_so_many_are_kept_and_the_rest_is_told(job: Job) -> None:
    log = keep(job, Files(**{f"f{number:03}": b"x" for number in range(250)}), "*")
    assert Artifact.objects.count() == 200
    assert log.said[0] == "250 files are there (artifact): the first 200 are taken."


def test_a_second_try_replaces_what_the_first_one_left(job: Job) -> None:
    keep(job, Files(report=b"one"), "/report")
    keep(job, Files(report=b"two"), "/report")
    assert Artifact.objects.get().file.read_bytes() == b"two"


def test_all_of_a_job_together_have_a_limit(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MOST_TOGETHER", 15)
    keep(job, Files(a=b"x" * 10, b=b"x" * 10, c=b"x" * 5), "*")
    assert [artifact.path for artifact in Artifact.objects.all()] == ["/a", "/c"]


def test_an_expired_one_is_not_given_and_then_removed(job: Job, alice: Any, sign_in: Any) -> None:
    keep(job, Files(old=b"x", new=b"y"), "*")
    old, new = Artifact.objects.get(path="/old"), Artifact.objects.get(path="/new")
    Artifact.objects.filter(pk=old.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    url = f"/projects/hello/pipelines/5/artifacts/{old.pk}"
    assert sign_in(alice).get(url).status_code == 404
    forget_expired()
    assert not old.file.exists()
    assert new.file.exists()
    assert list(Artifact.objects.all()) == [new]
