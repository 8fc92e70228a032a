"""Files of a pipeline's commit, read by one Git process, with which its build goes on."""

from __future__ import annotations

from pathlib import Path

from builders.context import Kind
from builders.context.git import GitContext
from builders.errors import BuildError
from ciserver.pipelines.definition import Build
from ciserver.pipelines.models import Pipeline
from ciserver.repositories.errors import RepositoryError
from ciserver.repositories.names import check_path

MAX_FILE = 1024 * 1024


class PlanError(Exception):
    """The commit cannot be planned; ``place`` is the file that is to blame."""

    def __init__(self, message: str, *, place: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint


class CommitFiles:
    """The commit of ``pipeline``. Close it."""

    def __init__(self, pipeline: Pipeline, git_dir: Path) -> None:
        self._pipeline = pipeline
        self._git_dir = git_dir
        self._root = GitContext(git_dir, pipeline.commit)

    def read(self, path: str, most: int = MAX_FILE) -> bytes | None:
        """A regular file, at most ``most`` bytes of it; None when the commit has none of that
        name. Raises PlanError."""
        try:
            check_path(path)
            entry = self._root.find(path)
            if entry is None or entry.kind is not Kind.FILE:
                return None
            data = bytearray()
            for _, chunks in self._root.read([entry]):
                for chunk in chunks:
                    data += chunk
                    if len(data) > most:
                        raise PlanError(f"At most {most} bytes of it are read.", place=path)
        except (RepositoryError, BuildError) as error:
            raise PlanError(str(error), place=path) from error
        return bytes(data)

    def has(self, path: str) -> bool:
        """Whether the commit has anything of that name. Raises PlanError."""
        try:
            return self._root.find(path) is not None
        except BuildError as error:
            raise PlanError(str(error), place=path) from error

    def context(self, build: Build) -> GitContext:
        """What COPY reads from. Close it, too; it and this may be closed more than once."""
        if build.context in {"", "."}:
            return self._root
        return GitContext(self._git_dir, self._pipeline.commit, build.context)

    def close(self) -> None:
        self._root.close()
