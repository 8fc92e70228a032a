"""What is kept together in one test process really is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ciserver.ops.launch import CHECKOUT
from tests.groups import ORDER, pytest_collection_modifyitems

TEST = """
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.mark.parametrize("number", range(5))
def test_one(number: int) -> None:
    time.sleep(0.2)  # long enough for the other process to take its share
    with Path(os.environ["SAID"]).open("a") as said:
        said.write(f"{Path(__file__).parent.name} {number} {os.environ['PYTEST_XDIST_WORKER']}\\n")
"""


def test_a_group_runs_in_one_process_and_in_its_order(tmp_path: Path) -> None:
    for name in ("e2e", "repositories", "faults", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"test_{name}.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    plugins = ["-p", "no:django", "-p", "no:schemathesis", "-p", "tests.groups"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "-n", "3", tmp_path]
    env = os.environ | {"SAID": str(tmp_path / "said"), "PYTHONPATH": str(CHECKOUT)}
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"):
        env.pop(name, None)
    ran = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    workers, numbers = defaultdict(set), defaultdict(list)
    for line in (tmp_path / "said").read_text().splitlines():
        folder, number, worker = line.split()
        workers[folder].add(worker)
        numbers[folder].append(int(number))
    assert len(workers["e2e"]) == len(workers["repositories"]) == len(workers["faults"]) == 1
    assert numbers["e2e"] == numbers["repositories"] == numbers["faults"] == list(range(5))
    assert workers["other"] - workers["e2e"]  # the rest goes on beside the group


def test_what_takes_longest_begins_first() -> None:
    assert list(ORDER)[:3] == ["walk", "service", "browser"]
    names = ["a.py::b", "e2e/test_c.py::d", "tests/walk/test_pages.py::e[f]", "x/test_away.py::g"]
    items: list[Any] = [SimpleNamespace(nodeid=name) for name in names]

    pytest_collection_modifyitems(items)

    assert [item.nodeid for item in items] == [names[2], names[1], names[3], names[0]]
