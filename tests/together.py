"""Things that are done at the same moment, as workers and people do them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from django.db import connections

Given = TypeVar("Given")
Got = TypeVar("Got")


def together(what: Callable[[Given], Got], given: Iterable[Given]) -> list[Got]:
    """What ``what`` gave for each of ``given``, in their order, each in a thread of its own.

    All begin at once and all have ended; the first error is raised. No thread leaves a database
    connection behind.
    """
    each = list(given)
    start = Barrier(len(each))

    def do(one: Given) -> Got:
        start.wait()
        try:
            return what(one)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(each)) as pool:
        return list(pool.map(do, each))
