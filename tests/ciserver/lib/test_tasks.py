"""What a worker loads: the tasks of every app, since what it does not know it would drop; and
nothing of the API, which no worker answers and which takes a third of its start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
# As a worker does when it starts, and in a process where nothing else has loaded them.
LOAD = """
import json, sys
from ciserver.celery import app
app.loader.init_worker()
print(json.dumps({"tasks": list(app.tasks), "modules": list(sys.modules)}))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    told = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=CHECKOUT,
        env=os.environ,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {kind: set(names) for kind, names in json.loads(told).items()}


def test_a_worker_knows_the_tasks_of_every_app(loaded: dict[str, set[str]]) -> None:
    known = {name.rpartition(".")[0] for name in loaded["tasks"]}
    there = {f"ciserver.{file.parent.name}.tasks" for file in CHECKOUT.glob("ciserver/*/tasks.py")}
    assert "ciserver.notifications.tasks" in there
    assert there <= known


def test_a_worker_loads_nothing_of_the_api(loaded: dict[str, set[str]]) -> None:
    assert "ciserver.lib.problems" in loaded["modules"]
    assert loaded["modules"].isdisjoint({"rest_framework.views", "rest_framework.serializers"})
