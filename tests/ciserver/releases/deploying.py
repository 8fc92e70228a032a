"""Workers that die in a step of a deployment, each forked from one process that is ready to work.

Run as ``python -m tests.ciserver.releases.deploying`` it reads lines of an id and a step, and
answers each with how the worker of that deployment ended. It is killed the moment that step has
been written down and before it is done, as kill -9 would. The step may also be "record": traffic
is switched and not recorded yet; a number of seconds, after which it is killed wherever it is; or
"none".
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import django


class Doomed:
    """The process that forks them, for the block."""

    def __init__(self, database: str, home: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env=os.environ | {"GANTRY_DATABASE_URL": f"sqlite:///{database}", "GANTRY_HOME": home},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Doomed:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def deploy(self, deployment_id: int, step: str) -> int:
        """Have a worker do it until ``step``; the worker's exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{deployment_id} {step}\n")
        return int(self._process.stdout.readline())


def main() -> None:
    django.setup()
    from ciserver.releases import runner

    for line in sys.stdin:
        deployment_id, step = line.split()
        seconds = float(step) if step[0].isdigit() else None
        pid = os.fork()
        if pid == 0:
            try:
                _be_killed_in(step)
                runner.deploy(int(deployment_id))
            finally:
                os._exit(0)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)  # it is ours until it is waited for, ended or not
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _be_killed_in(deadly: str) -> None:
    from django.db import transaction

    from ciserver.releases import health
    from ciserver.releases.models import DeploymentStep, Running

    create = DeploymentStep.objects.create

    def create_and_die(**fields: Any) -> DeploymentStep:
        row = create(**fields)
        if fields["name"] == deadly:
            transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        return row

    if deadly == "record":
        Running.objects.update_or_create = lambda **_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore
    DeploymentStep.objects.create = create_and_die  # type: ignore[method-assign]
    health.STABLE_FOR, health.BETWEEN_TRIES = 0.5, 0.1


if __name__ == "__main__":
    main()
