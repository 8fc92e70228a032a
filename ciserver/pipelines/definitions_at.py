"""``gantry.yml`` as a commit has it, for those who queue a pipeline before a worker plans it."""

from __future__ import annotations

import logging

from ciserver.pipelines.definition import FILE, MOST_BYTES, Definition, DefinitionError, parse
from ciserver.projects.models import Project
from ciserver.repositories import git
from ciserver.repositories.errors import RepositoryError, UnknownFile

log = logging.getLogger(__name__)
UNKNOWN = Definition()  # of a commit whose gantry.yml has mistakes, or cannot be read now


def definition_at(project: Project, commit: str) -> Definition:
    """Raises DefinitionError for a file with mistakes, RepositoryError when it cannot be read."""
    try:
        data = git.read_file(git.git_dir(project), commit, FILE, max_bytes=MOST_BYTES)
    except UnknownFile:
        return Definition()
    return parse(data.decode(errors="replace"))


def usable_definition(project: Project, commit: str) -> Definition:
    """The same, or UNKNOWN: its worker will find the mistakes again and tell them."""
    if not git.git_dir(project).is_dir():
        return UNKNOWN
    try:
        return definition_at(project, commit)
    except (DefinitionError, RepositoryError) as error:
        log.info("%s at %s: %s", project, commit[:12], error)
        return UNKNOWN
