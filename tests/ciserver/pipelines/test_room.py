"""A worker whose disk is full begins nothing, says why, and goes on by itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from ciserver.lib.models import OutboxEntry
from ciserver.pipelines import room, services
from ciserver.pipelines.leases import Lease
from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.runner import story

pytestmark = pytest.mark.root
MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path, settings: Any) -> Iterator[Path]:
    """Where this worker keeps its logs: 8 MiB, of which 4 are to stay free."""
    logs = tmp_path / "logs"
    logs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", logs], check=True)
    config = settings.GANTRY
    settings.GANTRY = replace(config, home=tmp_path, reserve=4 * MIB)
    try:
        yield logs
    finally:
        subprocess.run(["umount", logs], check=True)


def test_on_a_full_disk_nothing_begins_until_there_is_room_again(
    project: Any, alice: Any, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Lease] = []
    monkeypatch.setattr(story, "_run", begun.append)
    pipeline = services.queue(project=project, commit="a" * 40, ref="refs/heads/main")
    (small_disk / "filling").write_bytes(bytes(5 * MIB))

    story.run_next()

    pipeline.refresh_from_db()
    assert begun == []
    assert pipeline.state == "queued"
    assert f"disk at {small_disk} has no room for 4 MiB free" in pipeline.reason
    assert OutboxEntry.objects.filter(topic="pipeline.queued", object_id=pipeline.pk).exists()
    page = Client()
    page.force_login(alice)
    assert "has no room for 4 MiB free" in page.get(pipeline.get_absolute_url()).content.decode()

    (small_disk / "filling").unlink()
    story.run_next()

    assert [lease.pipeline_id for lease in begun] == [pipeline.pk]
    assert Pipeline.objects.get().reason == ""


def test_a_disk_without_inodes_is_full_too(small_disk: Path) -> None:
    assert room.lacking() == ""
    subprocess.run(["mount", "-o", "remount,nr_inodes=100", small_disk], check=True)
    assert "no room for 2000 files" in room.lacking()
