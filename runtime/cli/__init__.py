"""The command line of the sandboxes: what was asked for -> the code that does it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from runtime.cli.options import OURS, make_parser
from runtime.errors import SandboxError

__all__ = ["main"]

SIGPIPE = 128 + signal.SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: that of the command; 137 when it was killed; 125 when it could not be run."""
    arguments = make_parser().parse_args(argv)
    try:
        return int(arguments.function(arguments))
    except SandboxError as error:
        print(f"runtime: {error}", file=sys.stderr)
        return OURS
    except BrokenPipeError:  # whoever read our output has gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGPIPE
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sudo = isinstance(error, PermissionError) and os.geteuid() != 0
        hint = "Run it with sudo" if sudo else "`python -m runtime check` may tell why"
        print(f"runtime: {place}{error.strerror or error}. {hint}.", file=sys.stderr)
        return OURS
