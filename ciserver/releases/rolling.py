"""Hosts in batches, side by side within one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connection

from ciserver.releases.models import Host

Result = TypeVar("Result")
MOST = 16  # hosts at a time, whatever is asked


def batches(hosts: Sequence[Host], size: int) -> Iterator[Sequence[Host]]:
    """``hosts`` in their order, ``size`` at a time."""
    size = min(max(size, 1), MOST)
    for first in range(0, len(hosts), size):
        yield hosts[first : first + size]


def side_by_side(hosts: Sequence[Host], act: Callable[[Host], Result]) -> list[Result]:
    """``act`` for each of ``hosts`` at once; what each returned, in their order. What one raises
    is raised when all have ended.

    A single one is done in the caller's own thread, with the caller's connection to the database.
    """
    if len(hosts) == 1:
        return [act(hosts[0])]

    def alone(host: Host) -> Result:
        try:
            return act(host)
        finally:
            connection.close()

    with ThreadPoolExecutor(min(len(hosts), MOST) or 1, "host") as pool:
        return [done.result() for done in [pool.submit(alone, host) for host in hosts]]
