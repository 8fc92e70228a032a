"""Whom TLS connections believe."""

from __future__ import annotations

import ssl
from functools import cache


@cache
def trusted() -> ssl.SSLContext:
    """The system's certificates, not certifi's. Reading them takes a twentieth of a second."""
    return ssl.create_default_context()
