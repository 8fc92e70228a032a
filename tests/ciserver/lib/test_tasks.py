"""A worker knows the tasks of every app; what it does not know it would drop."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
# As a worker does when it starts, and in a process where nothing else has loaded them.
LOAD = "from ciserver.celery import app; app.loader.init_worker(); print(*app.tasks, sep='\\n')"


def test_a_worker_knows_the_tasks_of_every_app() -> None:
    told = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=CHECKOUT,
        env=os.environ,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    known = {name.rpartition(".")[0] for name in told.split()}
    there = {f"ciserver.{file.parent.name}.tasks" for file in CHECKOUT.glob("ciserver/*/tasks.py")}
    assert "ciserver.notifications.tasks" in there
    assert there <= known
