"""Waiting for what the service does by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ciserver.ops.errors import OpsError

Found = TypeVar("Found")


SOON = 120.0  # seconds for what takes one on a machine of today


def wait_for(
    look: Callable[[], Found | None],
    *,
    what: str,
    seconds: float = SOON,
    pause: float = 0.1,
    log: str = "worker",
) -> Found:
    """Calls ``look`` until it finds something. Raises OpsError after ``seconds``, and names the
    ``log`` of the process that should have done it."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise OpsError(
                f"{what} did not happen within {seconds:.0f} s.",
                next_step=f"See $GANTRY_HOME/logs/service/{log}.log, then run this again.",
            )
        time.sleep(pause)
    return found
