"""A folder that holds registry credentials for one pull, and is gone after it."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Credentials = tuple[str, str]  # user, password


@contextmanager
def folder(registry: str, credentials: Credentials | None) -> Iterator[Path]:
    """Holds ``config.json`` as docker and podman both read it. On disk for the pull alone, since
    an argument would be seen in the process list."""
    auths = {}
    if credentials:
        auth = base64.b64encode(":".join(credentials).encode()).decode()
        auths[registry] = {"auth": auth}
    with tempfile.TemporaryDirectory(prefix="gantry-pull-") as name:
        path = Path(name)
        (path / "config.json").write_text(json.dumps({"auths": auths}))
        (path / "config.json").chmod(0o600)
        yield path
