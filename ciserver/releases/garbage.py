"""Collects what no manifest in the registry beside us names any more, with the registry's own tool.

``retention`` deletes manifests; the layers that were theirs alone go here. It runs only while
nothing is uploaded (see ``lib.registry_lock``), and not at all when it would take a byte of a
release that is still there: a manifest that somebody deleted by hand is not the end of its layers.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings

from ciserver.accounts.models import AuditEntry
from ciserver.lib.registry_lock import alone
from ciserver.lib.words import size
from ciserver.releases.models import Release
from ciserver.releases.policy import GANTRY
from ciserver.releases.registry_disk import settings_file, storage
from ciserver.releases.targets import commands

log = logging.getLogger(__name__)
PATIENCE = 30.0  # seconds for uploads that go on
LONGEST = 3600.0  # seconds for one pass over the registry
DAY = 24 * 3600.0
ELIGIBLE = re.compile(r"blob eligible for deletion: (sha256:[0-9a-f]{64})")


class NotNow(Exception):
    """Nothing was collected. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Collected:
    """Blobs that went, or with a dry run would go; what they took and what all take, in bytes."""

    blobs: int
    freed: int
    left: int

    def words(self, *, dry_run: bool) -> str:
        verb = "would go" if dry_run else "went"
        return f"{self.blobs} blobs {verb} ({size(self.freed)}), {size(self.left)} of others stay."


def tidy(*, deleted: int) -> None:
    """A chore: after manifests were deleted, and else once a day, for uploads that were broken
    off. Busy times are let pass."""
    stamp = settings.GANTRY.run / "registry-collected"
    due = not stamp.exists() or time.time() - stamp.stat().st_mtime > DAY
    if not (deleted or due) or not settings_file().exists():
        return
    try:
        done = collect()
    except NotNow as why:
        log.warning("the registry's garbage stays for now: %s", why)
        stamp.unlink(missing_ok=True)  # it is due until it was done
    else:
        stamp.touch()
        log.info("the registry: %s", done.words(dry_run=False))


def collect(*, dry_run: bool = False, patience: float = PATIENCE) -> Collected:
    """Remove what no manifest names, or with ``dry_run`` only tell. Raises NotNow."""
    if not settings_file().exists():
        raise NotNow("The registry is not one that runs beside us. Collect its garbage there.")
    with alone(settings.GANTRY.run, patience=patience) as nothing_moves:
        if not nothing_moves:
            raise NotNow("Images are being uploaded. Try again when no pipeline runs.")
        found = set(ELIGIBLE.findall(_run("--dry-run")))
        before = dict(_blobs())
        _check(found)
        if not dry_run and found:
            _run()
        gone = found if dry_run else before.keys() - dict(_blobs()).keys()
    freed = sum(before.get(digest, 0) for digest in gone)
    if gone and not dry_run:
        AuditEntry.record(
            actor=GANTRY, action="registry.collect", target=settings.GANTRY.registry,
            blobs=len(gone), freed=freed,
        )  # fmt: skip
    return Collected(len(gone), freed, sum(before.values()) - freed)


def _check(found: set[str]) -> None:
    for release in Release.objects.filter(removed_at=None).iterator():
        facts = release.image
        parts = {digest for _, digest in release.every_image()}
        parts |= {layer["digest"] for layer in facts.get("layers", ())}
        parts |= {facts["config_digest"]} if facts else set()
        if lost := parts & found:
            raise NotNow(
                f"{release} needs {min(lost)[:19]}, and no manifest in the registry names it."
                " Somebody deleted it there: push that commit again, or have its layers kept."
            )


def _run(*options: str) -> str:
    """What the tool said. Raises NotNow."""
    argv = ["docker-registry", "garbage-collect", *options, str(settings_file())]
    done = commands.attempt(argv, timeout=LONGEST, keep=commands.MOST)
    if done.code != 0:
        raise NotNow(f"docker-registry could not: {done.err.strip()[-300:]}. See its folder.")
    return done.out


def _blobs() -> Iterator[tuple[str, int]]:
    """Digest and bytes of each."""
    for data in storage().glob("blobs/sha256/*/*/data"):
        yield f"sha256:{data.parent.name}", data.stat().st_size
