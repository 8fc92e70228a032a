"""What is kept together in one test process really is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from xdist.remote import Producer

from ciserver.ops.launch import CHECKOUT
from tests.groups import ORDER, ByGroup, group_of, pytest_collection_modifyitems

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
    assert {folder: len(those) for folder, those in workers.items()} == {
        "e2e": 1, "repositories": 1, "faults": 1, "other": 1,
    }  # fmt: skip
    assert all(those == list(range(5)) for those in numbers.values())


def test_what_takes_longest_begins_first() -> None:
    assert list(ORDER)[:3] == ["service", "walk", "machines"]
    names = ["a.py::b", "e2e/test_c.py::d", "tests/walk/test_pages.py::e[f]", "x/test_away.py::g"]
    items: list[Any] = [SimpleNamespace(nodeid=name) for name in names]

    pytest_collection_modifyitems(items)

    assert [item.nodeid for item in items] == [names[1], names[2], names[3], names[0]]


class Process:
    """Stands in for xdist's controller of a process, and keeps what that was sent."""

    def __init__(self, number: int) -> None:
        self.gateway = SimpleNamespace(id=f"gw{number}")
        self.shutting_down = False
        self.sent: list[int] = []

    def send_runtest_some(self, numbers: list[int]) -> None:
        self.sent += numbers

    def shutdown(self) -> None:
        self.shutting_down = True


def scheduled(tests: list[str], processes: int) -> tuple[Any, list[Any]]:
    options: Any = SimpleNamespace(
        getvalue=lambda _: [f"{processes}*popen"], option=SimpleNamespace(loadscopereorder=False)
    )
    scheduler: Any = ByGroup(options, Producer("tests", enabled=False))
    nodes: list[Any] = [Process(number) for number in range(processes)]
    for node in nodes:
        scheduler.add_node(node)
    for node in nodes:
        scheduler.add_node_collection(node, tests)
    scheduler.schedule()
    return scheduler, nodes


FILES = [f"tests/test_{number}.py::test" for number in range(12)]
GROUPED = [
    f"tests/{place}::test_{number}"
    for place in ("e2e/a.py", "walk/b.py", "x/test_hosts.py", "browser/c.py")
    for number in range(5)
]


def test_three_groups_run_at_once_and_files_beside_them() -> None:
    tests = GROUPED + FILES
    scheduler, nodes = scheduled(tests, 4)
    groups = [{group_of(tests[number]) for number in node.sent} for node in nodes]
    assert groups[:3] == [{"service"}, {"walk"}, {"machines"}]
    assert all(number >= len(GROUPED) for number in nodes[3].sent), "files"

    for number in nodes[0].sent[:4]:  # the first group ends but for its last test
        scheduler.mark_test_complete(nodes[0], number)
    assert len(nodes[0].sent) > 5
    assert "browser" in {group_of(tests[number]) for node in nodes for number in node.sent}
