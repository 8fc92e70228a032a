"""Keeps repositories quick to read and small: many pushes and fetches leave many packs.

Git would do it after a push or a fetch, while somebody waits; ``gc.auto`` is 0.
"""

from __future__ import annotations

import logging
from pathlib import Path

from django.conf import settings

from ciserver.lib.file_lock import alone
from ciserver.projects.models import Project
from ciserver.repositories.command import environment, run
from ciserver.repositories.errors import GitFailed
from ciserver.repositories.git import git_dir

# Below these, reading is quick and repacking is waste; git's own gc begins at 6,700 and 50.
LOOSE, PACKS = 2000, 20
SECONDS = 1800.0  # of one repository
log = logging.getLogger(__name__)


def repack_all() -> None:
    """Every repository that is worth it, one after another; nothing while another process does."""
    with alone(settings.GANTRY.run / "repack.lock") as mine:
        for project in Project.objects.all() if mine else ():
            place = git_dir(project)
            try:
                if place.exists() and is_worth_it(place):
                    repack(place)
                    log.info("%s: its repository is packed", project)
            except GitFailed as error:
                log.warning("%s: its repository could not be packed: %s", project, error)


def is_worth_it(place: Path) -> bool:
    """Raises GitFailed."""
    lines = run("count-objects", "-v", git_dir=place).decode().splitlines()
    counts = dict(line.split(": ", 1) for line in lines if ": " in line)
    return int(counts["count"]) > LOOSE or int(counts["packs"]) > PACKS


def repack(place: Path) -> None:
    """Roll loose objects and small packs up into larger ones (git-repack(1), ``--geometric``).

    No object is left out, reachable or not: a build may be reading a commit that a forced push
    took every name from, and whoever is pushing may rely on any. Raises GitFailed.
    """
    quiet = {"pack.threads": "1", "repack.writeBitmaps": "false"}
    run(
        "repack", "-d", "-q", "--geometric=2",
        git_dir=place, env=environment(settings=quiet), timeout=SECONDS,
    )  # fmt: skip
