"""One at a time, among all processes, for what a transaction does."""

from __future__ import annotations

import hashlib

from django.db import connection


def one_at_a_time(name: str) -> None:
    """Until the transaction's end nobody else gets past this with ``name``.

    SQLite lets one transaction write at a time anyway.
    """
    if connection.vendor == "postgresql":
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [number])
