"""The example with pytest and PostgreSQL, on bases made with this machine's package mirror."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builders.bases.tidy import EXCLUDED, INCLUDED
from tests.ciserver.pipelines.host_images import MODULES, SITE
from tests.e2e.service import CHECKOUT, Repository, Service
from tests.walk.commands import the_command

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(400)]


def test_pytest_with_postgresql_on_bases_from_the_machines_mirror(
    service: Service, tmp_path: Path
) -> None:
    _, *words = the_command("tests.md", "./gantry base").split()
    gantry = [sys.executable, "-m", "ciserver.cli"]  # as the script has it, once all is installed
    subprocess.run(
        [*gantry, *words], cwd=CHECKOUT, env=service.env, check=True, capture_output=True
    )
    _has_no_manuals(service.home / "store")
    service.make_project("notes")
    clone = Repository(tmp_path / "notes", service, "notes")
    shutil.copytree(CHECKOUT / "examples" / "python-postgres", clone.path, dirs_exist_ok=True)
    for name in MODULES:  # a step reaches no mirror of a private network unless it is allowed
        source, target = SITE / name, clone.path / "vendor" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, target)
    lines = (clone.path / "Dockerfile").read_text().splitlines()
    lines = ["" if "apt-get" in line else line for line in lines]
    lines[1] = "COPY vendor/ /usr/lib/python3/dist-packages/"
    commit = clone.push({"Dockerfile": "\n".join(lines) + "\n"})
    pipeline = service.pipeline_of("notes", commit, seconds=180)
    jobs = {job["name"]: job for job in pipeline["jobs"]}
    log = service.log_of(jobs["unit"])
    assert pipeline["state"] == "passed", f"{pipeline['reason']}\n{log}"
    assert "its health check passes." in log
    assert sorted((case["name"], case["outcome"]) for case in jobs["unit"]["cases"]) == [
        ("test_a_note_is_kept", "passed"),
        ("test_nothing_is_no_note", "passed"),
        ("test_quotes_are_only_text", "passed"),
    ]
    db, unit = jobs["unit"]["steps"]
    assert (db["receipt"]["outcome"], unit["receipt"]["exit_code"]) == ("stopped", 0)


def _has_no_manuals(store: Path) -> None:
    """Neither have those that come first, nor will those that are installed later."""
    bases = [path.parents[3] for path in store.glob("layers/sha256/*/tree/etc/dpkg/dpkg.cfg.d")]
    assert len(bases) >= 2, "that of the demo, and this one"
    for tree in (base / "tree" for base in bases):
        share = tree / "usr/share"
        found = [*(share / "man").rglob("*"), *(share / "doc").rglob("*")]
        files = [path for path in found if path.is_file() and not path.is_symlink()]
        assert [path for path in files if path.name != "copyright"] == []
        assert (tree / "usr/share/doc/bash/copyright").exists()
        kept = (tree / "etc/dpkg/dpkg.cfg.d/90container").read_text().splitlines()
        assert kept == [
            *(f"path-exclude={pattern}" for pattern in EXCLUDED),
            *(f"path-include={pattern}" for pattern in INCLUDED),
        ]
