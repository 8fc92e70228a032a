"""Variables of a container as the command line gives them: NAME=value, NAME, and files of these."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ciserver.cli.errors import CliError, Exit

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read(files: Iterable[Path], words: Iterable[str]) -> dict[str, str]:
    """Of ``files`` first, then ``words``: the later counts. A NAME alone has the value that it
    has in our own environment. Raises CliError with the place."""
    found: dict[str, str] = {}
    for file in files:
        for number, line in enumerate(_lines(file), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                found |= [_pair(line.rstrip("\r"), f"{file}:{number}: ")]
    for word in words:
        found |= [_pair(word, "")]
    return found


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(
            f"{file} cannot be read as text: {error}.",
            next_step="It has one NAME=value on each line.",
            exit_code=Exit.USAGE,
        ) from None


def _pair(word: str, place: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not _NAME.fullmatch(name):
        raise CliError(
            f"{place}{name!r} cannot be a variable's name.",
            next_step="Write NAME=value, or NAME for the value that it has where you are.",
            exit_code=Exit.USAGE,
        )
    if not equals:
        if name not in os.environ:
            raise CliError(
                f"{place}{name} has no value, and there is none in your environment.",
                next_step=f"Write {name}=value, or export {name} first.",
                exit_code=Exit.USAGE,
            )
        value = os.environ[name]
    if re.search(r"[\n\r\0]", value):
        raise CliError(
            f"{place}The value of {name} has a line break in it, which engines do not take.",
            next_step="Encode it, for example with base64, as Gantry's own secrets must be.",
            exit_code=Exit.USAGE,
        )
    return name, value
