"""What the registry beside us has on its disk: its API does not say when a manifest came, nor which
have no tag any more.

The layout is the "filesystem" driver's of CNCF distribution: ``repositories/NAME/_manifests`` has
``revisions/sha256/HEX/link``, written again whenever the manifest is pushed, and
``tags/TAG/current/link``, which holds a digest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings


@dataclass(frozen=True, slots=True)
class Revision:
    """A manifest of a repository: how long ago it was pushed, in seconds, and its tags."""

    digest: str
    age: float
    tags: frozenset[str]


def settings_file() -> Path:
    """As the supervisor wrote it; it is there if the registry is our child."""
    return Path(settings.GANTRY.run / "registry.json")


def storage() -> Path:
    return settings_file().parent.parent / "registry" / "docker" / "registry" / "v2"


def names_of(project: str) -> list[str]:
    """The repositories of a project: ``hello`` and ``hello/worker``. None of another registry."""
    if not settings_file().exists():
        return []
    root = storage() / "repositories"
    found = [root / project, *(root / project).glob("[!_]*")]
    return sorted(str(one.relative_to(root)) for one in found if (one / "_manifests").is_dir())


def revisions_of(name: str) -> Iterator[Revision]:
    """Those that are there; one may go meanwhile."""
    manifests = storage() / "repositories" / name / "_manifests"
    tags: dict[str, set[str]] = {}
    for link in manifests.glob("tags/*/current/link"):
        with suppress(FileNotFoundError):
            tags.setdefault(link.read_text().strip(), set()).add(link.parent.parent.name)
    for link in manifests.glob("revisions/sha256/*/link"):
        digest = f"sha256:{link.parent.name}"
        with suppress(FileNotFoundError):
            age = time.time() - link.stat().st_mtime
            yield Revision(digest, age, frozenset(tags.get(digest, ())))
