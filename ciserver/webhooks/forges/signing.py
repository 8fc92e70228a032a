"""HMAC-SHA256 over a body, compared in constant time: what most forges sign with."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from ciserver.lib.crypto import Secret


def signed(given: str, body: bytes, secrets: Sequence[Secret], *, prefix: str = "") -> bool:
    """True when ``given`` is ``prefix`` and the hex MAC of ``body`` under one of ``secrets``."""
    told = given.encode("latin-1", "replace")
    good = False
    for secret in secrets:
        mac = hmac.new(secret.reveal().encode(), body, "sha256").hexdigest()
        good |= hmac.compare_digest(told, (prefix + mac).encode())
    return good
