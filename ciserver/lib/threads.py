"""Database work from a coroutine that is not a Django view."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections

Result = TypeVar("Result")


async def in_database_thread(work: Callable[[], Result]) -> Result:
    """``work()`` in a thread, with the care for connections that Django gives a request."""
    return await sync_to_async(_with_connections, thread_sensitive=False)(work)


def _with_connections(work: Callable[[], Result]) -> Result:
    close_old_connections()
    try:
        return work()
    finally:
        close_old_connections()
