"""Reads why the OCI runtime could not start a container, from its log (JSON lines)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

NOT_FOUND = 127
NOT_EXECUTABLE = 126
_PREFIX = re.compile(
    r"^(runc run failed|runc exec failed|failed|unable to start container process|exec)\b:? ?"
)
_MISSING = re.compile(
    r"executable file not found|executable file [^ ]* not found|"
    r"exec:? .*[nN]o such file or directory|exec_process.*No such file"
)
_NO_DIRECTORY = re.compile(r"\bchdir( to\b| `|: )")
_FORBIDDEN = re.compile(
    r"exec:? .*(permission denied|exec format error|is a directory)|"
    r"open executable: (Permission denied|Operation not permitted)|is not a regular file|"
    r"exec user process caused"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """``exit_code`` is 126 or 127 when it was the program's fault, None when ours or the host's."""

    words: str
    exit_code: int | None


def read(log: Path) -> Failure | None:
    """The last error of a log; None when it has none, so that the program itself did run."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    messages = [message for line in lines if (message := _error(line))]
    return explain(messages[-1]) if messages else None


def _error(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return ""
    is_error = isinstance(entry, dict) and entry.get("level") in ("error", "fatal")
    return str(entry.get("msg", "")) if is_error else ""


def explain(message: str) -> Failure:
    """Pure: the runtime's message to a failure."""
    if _NO_DIRECTORY.search(message):  # before the next: runc's words hold those of both
        return Failure("its working directory cannot be entered", NOT_EXECUTABLE)
    if _MISSING.search(message):
        return Failure("not found", NOT_FOUND)
    if _FORBIDDEN.search(message):
        why = "wrong format" if "format error" in message else "cannot be executed"
        return Failure(why, NOT_EXECUTABLE)
    while (shorter := _PREFIX.sub("", message)) != message:
        message = shorter
    return Failure(message, None)
