"""Whom TLS connections believe."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=4)
def trusted(more: Path | None = None) -> ssl.SSLContext:
    """The system's certificates, not certifi's, and those of the file ``more``.

    Reading them takes a twentieth of a second: it is done once in a process.
    Raises OSError where ``more`` cannot be read, ssl.SSLError where it holds no certificates.
    """
    context = ssl.create_default_context()
    if more is not None:
        context.load_verify_locations(more)
    return context
