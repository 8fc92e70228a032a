"""The garbage of a real registry: what no manifest names goes, what runs somewhere stays."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from ciserver.accounts.models import AuditEntry
from ciserver.lib.registry_lock import alone, still_uploading, uploading
from ciserver.ops import __main__ as ops
from ciserver.releases import garbage, retention, services
from ciserver.releases.models import Release
from ciserver.releases.targets import images
from ciserver.releases.targets.images import Location
from tests.ciserver.releases import conftest
from tests.ciserver.releases.conftest import Registry

pytestmark = pytest.mark.django_db


@pytest.fixture
def ours(tmp_path: Path, settings: Any) -> Iterator[Registry]:
    """A registry as the supervisor runs it: its files under the home, its settings beside."""
    for folder in ("run", "registry"):
        (tmp_path / folder).mkdir()
    (tmp_path / "keys").symlink_to(settings.GANTRY.keys)
    address = f"127.0.0.1:{conftest.free_port()}"
    settings.GANTRY = replace(settings.GANTRY, home=tmp_path, registry=address)
    told = {
        "version": "0.1",
        "storage": {
            "filesystem": {"rootdirectory": str(tmp_path / "registry")},
            "delete": {"enabled": True},
        },
        "http": {"addr": address},
    }
    (tmp_path / "run" / "registry.json").write_text(json.dumps(told))
    with conftest._running(
        ["docker-registry", "serve", str(tmp_path / "run" / "registry.json")], tmp_path / "log"
    ):
        conftest.wait_for(lambda: conftest._answers(f"http://{address}/v2/"))
        yield Registry(address)


def release(ours: Registry, passed: Any, page: str) -> Release:
    digest = ours.push("hello", page=page)
    made = services.make_release(passed(digest, repository=f"{ours.address}/hello"))
    facts = images.read_facts(Location(ours.address, "hello"), digest, token=None)
    made.image = facts.as_json()
    made.save()
    return made


def can_be_pulled(ours: Registry, row: Release) -> bool:
    base = f"http://{ours.address}/v2/hello"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    manifest = httpx.get(f"{base}/manifests/{row.digest}", headers=accept, verify=False)
    if manifest.status_code != 200:
        return False
    parts = [manifest.json()["config"], *manifest.json()["layers"]]
    blobs = (f"{base}/blobs/{one['digest']}" for one in parts)
    return all(httpx.get(blob, verify=False).status_code == 200 for blob in blobs)


def test_what_only_a_deleted_image_had_goes_and_the_others_still_pull(
    ours: Registry, passed: Any, capsys: Any
) -> None:
    old, new = release(ours, passed, "old" * 1000), release(ours, passed, "new")
    assert garbage.collect().blobs == 0
    retention.delete_manifest(old.repository, old.digest)
    Release.objects.filter(pk=old.pk).update(removed_at="2026-01-01T00:00:00Z")
    planned = garbage.collect(dry_run=True)
    assert planned.blobs == 3, "manifest, configuration and the layer that was its own"
    assert can_be_pulled(ours, new)
    before = planned.left + planned.freed
    assert ops.main(["collect", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("3 blobs would go (")
    done = garbage.collect()
    assert (done.blobs, done.freed, done.left) == (3, planned.freed, before - planned.freed)
    assert not can_be_pulled(ours, old)
    assert can_be_pulled(ours, new), "the layer that both had is still there"
    told = AuditEntry.objects.get(action="registry.collect")
    assert told.detail == {"blobs": 3, "freed": done.freed}
    again = ours.push("hello", page="old" * 1000)
    new.digest = again
    assert can_be_pulled(ours, new), "what went can be pushed again"


def test_nothing_goes_while_something_is_uploaded_and_uploads_wait_for_the_collector(
    ours: Registry, passed: Any, settings: Any
) -> None:
    run = settings.GANTRY.run
    with uploading(run), uploading(run), pytest.raises(garbage.NotNow, match="are being uploaded"):
        garbage.collect(patience=0)
    with alone(run, patience=0) as nothing_moves:
        assert nothing_moves
        began = threading.Event()
        upload = threading.Thread(target=lambda: _upload(run, began))
        upload.start()
        assert not began.wait(0.2)
    assert began.wait(10)
    upload.join()


def _upload(run: Path, began: threading.Event) -> None:
    with uploading(run), still_uploading(run):
        began.set()


def test_a_release_whose_manifest_somebody_deleted_keeps_its_layers(
    ours: Registry, passed: Any, capsys: Any
) -> None:
    row = release(ours, passed, "one")
    retention.delete_manifest(row.repository, row.digest)
    with pytest.raises(garbage.NotNow, match=r"hello v1 needs sha256:.*Somebody deleted it there"):
        garbage.collect()
    assert ops.main(["collect"]) == 1
    assert "Somebody deleted it there" in capsys.readouterr().err


def test_the_chore_comes_when_something_was_deleted_and_else_once_a_day(
    ours: Registry, monkeypatch: Any, settings: Any
) -> None:
    asked: list[str] = []

    def collect() -> garbage.Collected:
        asked.append("collect")
        return garbage.Collected(0, 0, 0)

    monkeypatch.setattr(garbage, "collect", collect)
    garbage.tidy(deleted=0)
    garbage.tidy(deleted=0)
    assert len(asked) == 1
    garbage.tidy(deleted=1)
    assert len(asked) == 2
    (settings.GANTRY.run / "registry.json").unlink()
    garbage.tidy(deleted=1)
    assert len(asked) == 2
    monkeypatch.undo()
    with pytest.raises(garbage.NotNow, match="not one that runs beside us"):
        garbage.collect()
