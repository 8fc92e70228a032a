"""Looking at what a failed job left: who may, for how long, and what comes of it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ciserver.accounts.models import AuditEntry
from ciserver.lib.models import OutboxEntry
from ciserver.pipelines.models import Inspection, Job
from ciserver.pipelines.runner import inspecting
from ciserver.projects.models import Membership, Role
from runtime import kept
from runtime.snapshots import LowerDir, mount_rootfs
from runtime.spec import IdRange, SandboxSpec
from runtime.state import StateDirectory
from tests.ciserver.pages import seeding
from tests.conftest import api_as
from tests.runtime.conftest import BUSYBOX, area

__all__ = ["area"]
IDS = IdRange(3_900_000_000)
ADDRESS = "/api/v1/inspections/"


@pytest.fixture
def failed(project: Any) -> Job:
    job = seeding.make_failed(project, 1).jobs.get(name="unit")
    step = job.steps.last()
    assert step is not None
    step.receipt = seeding.receipt(1, 1 << 20) | {"kept": "run-1", "kept_until": time.time() + 60}
    step.receipt |= {"exit_code": 3}
    step.save()
    return job


def ask(user: Any, job: Job, *command: str) -> Any:
    return api_as(user).post(ADDRESS, {"job": job.pk, "command": list(command)}, format="json")


def test_a_maintainer_may_ask_and_it_is_written_down(failed: Job, alice: Any, bob: Any) -> None:
    Membership.objects.filter(user=bob).update(role=Role.MAINTAINER)
    answer = ask(bob, failed, "cat", "/tmp/a b")
    assert (answer.status_code, answer.data["state"]) == (202, "queued")
    entry = AuditEntry.objects.get(action="job.inspect")
    assert entry.actor == "bob" and entry.target.endswith("unit: cat '/tmp/a b'")
    assert OutboxEntry.objects.filter(topic="inspection.asked").exists()


def test_a_developer_and_a_stranger_may_not(
    failed: Job, alice: Any, bob: Any, charlie: Any
) -> None:
    assert ask(bob, failed, "ls").status_code == 403
    assert ask(charlie, failed, "ls").status_code == 404
    row = ask(alice, failed, "ls").data
    assert api_as(bob).get(f"{ADDRESS}{row['id']}/").status_code == 404
    assert api_as(alice).get(f"{ADDRESS}{row['id']}/").status_code == 200
    assert Inspection.objects.count() == 1


def test_what_is_not_kept_any_more_is_said(failed: Job, alice: Any) -> None:
    step = failed.steps.last()
    assert step is not None
    step.receipt = {"kept": "run-1", "kept_until": time.time() - 1}
    step.save()
    answer = ask(alice, failed, "ls")
    assert answer.status_code == 409 and "GANTRY_KEEP_FAILED" in str(answer.data)
    assert ask(alice, failed).status_code == 400
    failed.steps.update(receipt=None)
    answer = ask(alice, failed, "ls")
    assert answer.status_code == 409 and "before it ran any program" in str(answer.data)


def test_the_page_tells_until_when(failed: Job, client: Any, alice: Any) -> None:
    client.force_login(alice)
    page = client.get(failed.pipeline.get_absolute_url()).content.decode()
    assert "gantry inspect hello unit" in page and "kept until" in page


@pytest.mark.root
def test_a_worker_runs_it_once_and_shows_what_it_said(
    failed: Job, alice: Any, area: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDirectory(area / "state")
    monkeypatch.setattr(inspecting, "open_workshop", lambda: SimpleNamespace(state=state))
    left_behind(state, area)
    row = ask(alice, failed, "/bin/cat", "/tmp/trace").data
    for _ in range(2):
        inspecting.inspect(row["id"])
    row = api_as(alice).get(f"{ADDRESS}{row['id']}/").data
    assert (row["state"], row["exit_code"], row["output"]) == ("passed", 0, "x\n")
    assert not OutboxEntry.objects.filter(topic="inspection.asked").exists()
    kept.drop(state, "run-1")
    row = ask(alice, failed, "/bin/ls").data
    inspecting.inspect(row["id"])
    row = api_as(alice).get(f"{ADDRESS}{row['id']}/").data
    assert row["state"] == "failed" and "No failed sandbox" in row["reason"]


def left_behind(state: StateDirectory, area: Path) -> None:
    (area / "tree/bin").mkdir(parents=True)
    for path in (area / "tree", area / "tree/bin"):
        path.chmod(0o755)
    shutil.copy(BUSYBOX, area / "tree/bin/busybox")
    for name in ("sh", "cat", "ls", "mkdir"):
        (area / "tree/bin" / name).symlink_to("busybox")
    (area / "layers").mkdir()
    with mount_rootfs(
        [LowerDir(area / "tree")], ids=IDS, scratch=area / "layers", target=area / "root"
    ) as rootfs:
        spec = SandboxSpec(
            id="run-1", rootfs=rootfs.path, ids=IDS, upper=rootfs.upper,
            args=("/bin/sh", "-c", "mkdir /tmp; echo x > /tmp/trace; exit 3"),
        )  # fmt: skip
        assert kept.run_and_keep(spec, rootfs, 60, state=state).kept == "run-1"
