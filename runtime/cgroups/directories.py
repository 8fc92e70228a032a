"""Makes the directories of cgroups while others remove the parents that have become empty."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from runtime.errors import HostError

TRIES = 1000


def make(directory: Path) -> None:
    """With its parents, as ``mkdir -p``. Raises HostError.

    The last sandbox of a pipeline takes the common parent away when it ends, perhaps between
    our finding the parent there and making something in it.
    """
    try:
        for _ in range(TRIES):
            with suppress(FileNotFoundError, FileExistsError):
                directory.mkdir(parents=True, exist_ok=True)
                return
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(
            f"The cgroup {directory} cannot be made: {error}.",
            hint="`python -m runtime check` tells what is missing.",
        ) from error
