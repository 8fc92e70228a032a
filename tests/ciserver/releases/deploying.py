"""Run as ``python -m tests.ciserver.releases.deploying ID STEP``: a worker that dies in STEP.

It is killed the moment that step has been written down and before it is done, as kill -9 would.
STEP may also be "record": traffic is switched and not recorded yet.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import django


def main(deployment_id: int, deadly: str) -> None:
    django.setup()
    from ciserver.releases import health, runner
    from ciserver.releases.models import DeploymentStep, Running

    create = DeploymentStep.objects.create

    def create_and_die(**fields: Any) -> DeploymentStep:
        row = create(**fields)
        if fields["name"] == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return row

    if deadly == "record":
        Running.objects.update_or_create = lambda **_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore
    DeploymentStep.objects.create = create_and_die  # type: ignore[method-assign]
    health.STABLE_FOR, health.BETWEEN_TRIES = 0.5, 0.1
    runner.deploy(deployment_id)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
