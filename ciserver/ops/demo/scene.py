"""What must be there before the first push: base image, project, host, environments."""

from __future__ import annotations

import signal
import subprocess
from collections import deque
from collections.abc import Callable

from ciserver.cli.client import Client
from ciserver.config import Config
from ciserver.ops.errors import OpsError
from ciserver.ops.launch import CHECKOUT, service_environment

BASE_IMAGE = "gantry/python:3"
HOST = "local"
CHAIN = (("qa", True), ("prod", False))  # (name, deploys by itself)


def ensure_base(config: Config, tell: Callable[[str], None]) -> None:
    """Makes the base image unless the store has it; ``tell`` hears how that goes.

    Raises OpsError with the tool's last words.
    """
    python = str(CHECKOUT / ".venv/bin/python")
    last: deque[str] = deque(maxlen=15)
    with subprocess.Popen(
        [python, "-m", "builders", "--store", str(config.store), "base", BASE_IMAGE],
        env=service_environment(config.home),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as tool:
        try:
            for line in tool.stdout or ():
                last.append(line.rstrip())
                tell(last[-1])
        except KeyboardInterrupt:
            tool.send_signal(signal.SIGINT)
            raise
    if tool.returncode != 0:
        raise OpsError(
            f"The base image {BASE_IMAGE} could not be made.",
            next_step="See the lines above; the distribution's mirror must be reachable.",
            details="\n".join(last),
        )


def set_the_scene(api: Client, project: str) -> None:
    """Project and environments, each only when it is not there yet."""
    if project not in {row["slug"] for row in api.every("/projects/")}:
        api.post("/projects/", slug=project, description="The demo's example")
    present = {row["name"] for row in api.rows("/environments/", project=project)}
    for name, auto in CHAIN:
        if name not in present:
            api.post("/environments/", project=project, name=name, auto=auto, hosts=[HOST])
