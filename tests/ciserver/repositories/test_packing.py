"""Repositories are packed when pushes have left many pieces, and nothing is lost by it."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from ciserver.repositories import packing
from ciserver.repositories.git import create_hosted
from tests.ciserver.repositories.serving import commit
from tests.ciserver.repositories.serving import git as by_hand

PUSHES = packing.PACKS + 5


@pytest.fixture
def repository(project: Any, tmp_path: Path) -> Path:
    """After many pushes, the last of which took every name from the commits before it."""
    place = create_hosted(project)
    by_hand("config", "receive.unpackLimit", "1", cwd=place)
    for number in range(PUSHES):
        commit(tmp_path, {"file": str(number)}, f"Commit {number}")
        by_hand("push", "-q", str(place), "HEAD:refs/heads/main", cwd=tmp_path)
    by_hand("checkout", "-q", "--orphan", "fresh", cwd=tmp_path)
    commit(tmp_path, {"file": "fresh"}, "Begin anew")
    by_hand("push", "-q", "--force", str(place), "HEAD:refs/heads/main", cwd=tmp_path)
    return place


def packs(place: Path) -> int:
    return len(list(place.glob("objects/pack/*.pack")))


def objects(place: Path) -> set[str]:
    words = ("cat-file", "--batch-all-objects", "--batch-check", "--unordered")
    return set(by_hand(*words, cwd=place).splitlines())


def test_many_packs_become_few_and_no_object_is_lost(repository: Path) -> None:
    before = objects(repository)
    assert packs(repository) > packing.PACKS
    packing.repack_all()
    assert packs(repository) <= 3
    assert objects(repository) == before
    by_hand("fsck", "--strict", cwd=repository)
    assert not packing.is_worth_it(repository)
    owner = repository.stat().st_uid
    assert {path.stat().st_uid for path in repository.glob("objects/pack/*")} == {owner}


def test_loose_objects_count_too(repository: Path, monkeypatch: Any, tmp_path: Path) -> None:
    packing.repack(repository)
    by_hand("config", "receive.unpackLimit", "100", cwd=repository)
    commit(tmp_path, {"a": "one", "b": "two"}, "Two files")
    by_hand("push", "-q", str(repository), "HEAD:refs/heads/main", cwd=tmp_path)
    monkeypatch.setattr(packing, "LOOSE", 3)
    assert packing.is_worth_it(repository)
    packing.repack_all()
    assert not packing.is_worth_it(repository)


def test_one_process_packs_at_a_time(repository: Path) -> None:
    with (settings.GANTRY.run / "repack.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        packing.repack_all()
    assert packs(repository) > packing.PACKS


def test_a_broken_repository_does_not_hold_up_others(
    repository: Path, alice: Any, caplog: Any
) -> None:
    from ciserver.projects.models import Project

    first = Project.objects.create(slug="a-broken-one")
    place = create_hosted(first)
    (place / "HEAD").unlink()
    packing.repack_all()
    assert packs(repository) <= 3
    assert "a-broken-one" in caplog.text
