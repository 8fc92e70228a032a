"""What a container runs: the image's ENTRYPOINT and CMD, and what ``gantry.yml`` says instead."""

from __future__ import annotations

import shlex

from builders.images.store import Image
from ciserver.pipelines.runner.jobs import JobFailed

Words = str | list[str] | None


def command_of(image: Image, entrypoint: Words, command: Words, *, follow: bool) -> Words:
    """For ``Container.run``: None is the image's own.

    With ``follow`` as in Compose: ``command`` takes the place of CMD and follows the ENTRYPOINT,
    and lines are split into words. Else ``command`` is run as it is, a line by the shell.
    Raises JobFailed for a line with an open quote.
    """
    if entrypoint is None and (command is None or not follow):
        return command
    first = list(image.config.entrypoint or ()) if entrypoint is None else _words(entrypoint)
    if command is None:
        command = [] if entrypoint is not None else list(image.config.cmd or ())
    return [*first, *_words(command)]


def text_of(image: Image, words: Words) -> str:
    """One line that shows it; empty when there is nothing to run."""
    if words is None:
        words = [*(image.config.entrypoint or ()), *(image.config.cmd or ())]
    return words if isinstance(words, str) else shlex.join(words)


def _words(line: str | list[str]) -> list[str]:
    try:
        return shlex.split(line) if isinstance(line, str) else line
    except ValueError as error:
        raise JobFailed(
            f"The command {line[:80]!r} cannot be split into words: {error}.",
            hint="Write it as a list of words.",
        ) from None
