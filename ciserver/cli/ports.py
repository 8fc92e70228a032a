"""Ports of this machine that a container's answer on."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence

from ciserver.cli.errors import CliError, Exit

_WORD = re.compile(r"(\d{1,5})(?::(\d{1,5}))?")
HIGHEST = 65535


def choose(words: Sequence[str], exposed: int | None) -> list[tuple[int, int]]:
    """(port here, port of the container) of each HERE or HERE:THERE in ``words``; HERE 0 is any
    free one. Without words ``exposed``, by the same number if that is free. Raises CliError."""
    if words:
        return [_parse(word, exposed) for word in words]
    if exposed is None:
        return []
    return [(_taken(0) if _problem(exposed) else exposed, exposed)]


def _parse(word: str, exposed: int | None) -> tuple[int, int]:
    match = _WORD.fullmatch(word)
    here, there = (int(match[1]), int(match[2] or exposed or 0)) if match else (-1, -1)
    if not 0 <= here <= HIGHEST or not 0 <= there <= HIGHEST or (match and match[2] and not there):
        raise CliError(
            f"{word!r} is not a port.",
            next_step="Write --port 8080, or --port 8080:80 with the container's after a colon.",
            exit_code=Exit.USAGE,
        )
    if not there:
        raise CliError(
            "The image exposes no port.",
            next_step=f"Name the container's too, such as --port {here}:80.",
            exit_code=Exit.USAGE,
        )
    if here and (problem := _problem(here)):
        raise CliError(
            f"Port {here} of this machine cannot be used: {problem}.",
            next_step=f"Choose another, or any that is free: --port 0:{there}",
            exit_code=Exit.REFUSED,
        )
    return here or _taken(0), there


def _problem(port: int) -> str:
    try:
        _taken(port)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _taken(port: int) -> int:
    """The port of this machine that was bound for a moment: ``port``, or with 0 a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not one that just ended
        probe.bind(("127.0.0.1", port))
        return int(probe.getsockname()[1])
