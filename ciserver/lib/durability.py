"""Commits that need not outlive a power cut, since what they tell of would be done again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DatabaseError, connection

LATER = {
    "sqlite": ("PRAGMA synchronous=NORMAL", "PRAGMA synchronous=FULL"),
    "postgresql": ("SET synchronous_commit=off", "RESET synchronous_commit"),
}


@contextmanager
def repeatable() -> Iterator[None]:
    """Until the block ends this thread's commits do not wait for the disk (2 to 5 ms each).

    A power cut may take the last of them, in their order: both databases write one log, so that
    the next commit of anybody who does wait makes all before it durable, too. A crash of a
    process takes none. In a transaction nothing changes.
    https://www.sqlite.org/pragma.html#pragma_synchronous
    https://www.postgresql.org/docs/current/wal-async-commit.html
    """
    if connection.in_atomic_block:
        yield
        return
    begin, end = LATER[connection.vendor]
    _tell(begin)
    try:
        yield
    finally:
        if connection.connection is not None:
            try:
                _tell(end)
            except DatabaseError:
                connection.close()  # a new one is as the settings have it


def _tell(words: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(words)
