"""Waiting for what the service does by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ciserver.ops.errors import OpsError

Found = TypeVar("Found")


def wait_for(
    look: Callable[[], Found | None], *, seconds: float, what: str, pause: float = 0.1
) -> Found:
    """Calls ``look`` until it finds something. Raises OpsError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise OpsError(
                f"{what} did not happen within {seconds:.0f} s.",
                next_step="The worker's log is in $GANTRY_HOME/logs/service/worker.log.",
            )
        time.sleep(pause)
    return found
