"""Standing in a pipe: when ``head`` has read enough, we end with 0 and say nothing.

Typer and Rich would each end with 1, which of ours means that a pipeline or deployment failed.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class Output(io.TextIOWrapper):
    """Standard output, whose first failed write for want of a reader ends the process."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            _enough()

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            _enough()


@contextmanager
def stop_quietly() -> Iterator[None]:
    """Within it, and when Python flushes at the very end, a closed pipe is no error."""
    stdout = sys.stdout
    if not isinstance(stdout, io.TextIOWrapper):
        yield
        return
    line_by_line, encoding, errors = stdout.line_buffering, stdout.encoding, stdout.errors
    sys.stdout = Output(
        stdout.detach(), encoding=encoding, errors=errors, line_buffering=line_by_line
    )
    try:
        yield
    finally:
        sys.stdout.flush()


def _enough() -> NoReturn:
    # What is still buffered has to go somewhere when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    raise SystemExit(0)
