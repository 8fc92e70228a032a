"""The example projects, built and tested as anybody would: Python with PostgreSQL, a site, two
images. Only what they install from a package mirror is of this machine's own packages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.runner import story
from tests.ciserver.pipelines.host_images import make_host_images
from tests.ciserver.pipelines.workplace import Workplace, log_of

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="module")
def bases(shared_workplace: Workplace) -> None:
    make_host_images(shared_workplace.workshop.store, shared_workplace.folder / "host")


def run(workplace: Workplace, name: str) -> Pipeline:
    tree = workplace.tree({})
    shutil.copytree(EXAMPLES / name, tree, dirs_exist_ok=True)
    for dockerfile in tree.rglob("Dockerfile"):
        lines = dockerfile.read_text().splitlines(keepends=True)
        dockerfile.write_text("".join(line for line in lines if "apt-get" not in line))
    pipeline = workplace.queue_tree(tree)
    story.run(pipeline.pk)
    pipeline.refresh_from_db()
    return pipeline


def test_pytest_with_postgresql_as_a_service(workplace: Workplace, bases: None) -> None:
    pipeline = run(workplace, "python-postgres")
    job = pipeline.jobs.get(name="unit")
    assert (job.state, job.reason) == ("passed", ""), log_of(job)
    assert sorted(case.name for case in job.cases.all()) == [
        "test_a_note_is_kept",
        "test_nothing_is_no_note",
        "test_quotes_are_only_text",
    ]
    assert "Ready after" in log_of(job)
    db, unit = job.steps.all()
    assert (db.receipt["outcome"], unit.receipt["exit_code"]) == ("stopped", 0)
    assert db.receipt["received_bytes"] > 0


def test_a_static_site_is_read_from_the_image_that_is_released(
    workplace: Workplace, bases: None
) -> None:
    pipeline = run(workplace, "static-site")
    assert (pipeline.state, pipeline.reason) == ("passed", "")
    assert "out 3 pages and files" in log_of(pipeline.jobs.get(name="links"))


def test_two_images_are_tested_together(workplace: Workplace, bases: None) -> None:
    pipeline = run(workplace, "two-images")
    assert (pipeline.state, pipeline.reason) == ("passed", "")
    assert "= 42" in log_of(pipeline.jobs.get(name="together"))
    assert set(pipeline.images) == {"web", "worker"}
