"""The client alone: its wheel, in a virtual environment that has what it names and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).resolve().parents[3]


def needed(name: str, seen: set[str]) -> Iterator[Distribution]:
    """``name`` and all that it needs here, as installed beside us: nothing is fetched."""
    if name in seen:
        return
    seen.add(name)
    found = distribution(name)
    yield found
    for line in found.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from needed(requirement.name, seen)


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """The ``gantry`` of a fresh environment."""
    where = tmp_path / "alone"
    venv.create(where / "venv", symlinks=True)
    wheel_dir = where / "wheel"
    wheel_dir.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "-q", "--no-deps", "--no-index", "-w", wheel_dir, CHECKOUT / "client"],
        check=True,
    )
    (wheel,) = wheel_dir.iterdir()
    python = where / "venv" / "bin" / "python"
    subprocess.run(
        [*pip, "--python", python, "install", "-q", "--no-deps", "--no-index", wheel], check=True
    )
    (site,) = (where / "venv" / "lib").glob("python*/site-packages")
    info = next(site.glob("gantry_client-*.dist-info"))
    seen: set[str] = set()
    for requirement in Distribution.at(info).requires or []:
        for found in needed(Requirement(requirement).name, seen):
            for top in {Path(str(file)).parts[0] for file in found.files or []} - {".."}:
                place = Path(str(found.locate_file(top)))
                if not (site / top).exists() and place.exists():
                    (site / top).symlink_to(place)
    return where / "venv" / "bin" / "gantry"


def _run(program: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In an environment that names neither the checkout nor another."""
    env = {"HOME": str(home), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [program, *words],
        env=env, cwd=home, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_the_client_works_with_nothing_of_the_service_beside_it(
    alone: Path, tmp_path: Path, live_server: Any, token: str, history: Any
) -> None:
    assert _run(alone, tmp_path, "--version").stdout == "gantry 0.1.0\n"
    ran = _run(alone, tmp_path, "login", live_server.url, "--token", token)
    assert (ran.returncode, ran.stderr) == (0, "")
    rows = json.loads(_run(alone, tmp_path, "projects", "--json").stdout)
    assert [row["slug"] for row in rows] == ["hello"]
    python = alone.with_name("python")
    code = "import ciserver.cli.app, sys; print(sorted({'django', 'celery'} & set(sys.modules)))"
    assert _run(python, tmp_path, "-c", code).stdout == "[]\n"
    code = "import importlib.util as u; print(u.find_spec('django'), u.find_spec('ciserver.lib'))"
    assert _run(python, tmp_path, "-c", code).stdout == "None None\n"
    ran = _run(alone, tmp_path, "up")
    assert ran.returncode == 2
    assert "this is the client alone" in ran.stderr
