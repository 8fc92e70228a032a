"""What a worker says at its start of the machine that it is on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ciserver.pipelines.runner import announce
from runtime import host


@pytest.fixture(autouse=True)
def looked_up_anew() -> Iterator[None]:
    host.oci_runtime.cache_clear()
    yield
    host.oci_runtime.cache_clear()


@pytest.mark.root
def test_the_runtime_and_its_version_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ciserver.pipelines.runner.machine")
    announce()
    path = host.oci_runtime().path
    assert caplog.messages[0].startswith(f"sandboxes run by {path}, {path.name} version ")


def test_one_that_lacks_the_fixes_of_2025_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "runc"
    old.write_text("#!/bin/sh\necho runc version 1.1.5+ds1\necho commit: x\n")
    old.chmod(0o755)
    monkeypatch.setenv("GANTRY_OCI_RUNTIME", str(old))
    announce()
    [warning] = [record for record in caplog.records if "CVE-2025-31133" in record.message]
    assert warning.levelname == "WARNING"
    assert warning.message.startswith("runc 1.1.5 may lack the fixes")


def test_one_that_is_not_there_is_a_warning_with_the_next_step(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANTRY_OCI_RUNTIME", "/nowhere/runc")
    announce()
    assert any("apt-get install" in message for message in caplog.messages)
