"""Registry credentials as docker and podman both read them."""

from __future__ import annotations

import base64
import json

Credentials = tuple[str, str]  # user, password


def config(registry: str, credentials: Credentials | None) -> bytes:
    """The content of a ``config.json``."""
    auths = {}
    if credentials:
        auth = base64.b64encode(":".join(credentials).encode()).decode()
        auths[registry] = {"auth": auth}
    return json.dumps({"auths": auths}).encode()
