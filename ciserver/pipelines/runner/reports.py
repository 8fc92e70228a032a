"""Finding the files that a test names, in its container when it has ended."""

from __future__ import annotations

from collections.abc import Iterable

from builders.containers import Container
from ciserver.pipelines.runner.jobs import JobRun

LONGEST = 500  # characters of a path


def found(
    run: JobRun,
    container: Container,
    patterns: Iterable[str],
    what: str,
    *,
    most: int,
    below: bool = False,
) -> list[str]:
    """Paths of the files that ``patterns`` name, each once, ``most`` at the most, that a row and a
    header can hold; ``below`` as ``Container.glob`` has it. What is not there, or is left out, is
    said in the log."""
    paths: dict[str, None] = {}
    for pattern in patterns:
        try:
            matching = container.glob(pattern, below=below)
        except OSError as error:
            run.log.say(f"No {what} is looked for at {pattern}: {error.strerror}.")
            continue
        if not matching:
            run.log.say(f"No {what} at {pattern}.")
        paths |= dict.fromkeys(matching)
    odd = {path: None for path in paths if len(path) > LONGEST or not path.isprintable()}
    if odd:
        run.log.say(
            f"{len(odd)} files are left out ({what}), as their names have more than {LONGEST}"
            f" characters or such as cannot be shown. The first is {ascii(next(iter(odd)))[:200]}."
        )
        paths = dict.fromkeys(path for path in paths if path not in odd)
    if len(paths) > most:
        run.log.say(f"{len(paths)} files are there ({what}): the first {most} are taken.")
    return list(paths)[:most]
