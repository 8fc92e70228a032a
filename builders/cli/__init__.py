"""The command line of the builder: what was asked for -> the code that does it.

Exit codes: 0 done; 1 the Dockerfile's, a step's or the caller's fault; 2 ours.
"""

from __future__ import annotations

import signal
import sys
import textwrap
import threading
from collections.abc import Sequence

from builders.cli.commands import COMMANDS
from builders.cli.options import parse_arguments
from builders.errors import BuildCancelled, BuildError, StepFailed, UserError
from runtime.errors import SandboxError

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run one command; never raises for what went wrong, but says it and returns the code."""
    options = parse_arguments(arguments)
    cancel = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: cancel.set())
    try:
        COMMANDS[options.command](options, cancel)
    except StepFailed as error:
        if options.quiet and error.tail:  # else it has been seen already
            print(textwrap.indent(error.tail, "  | "), file=sys.stderr)
        print(f"\n{_with_column(error)}", file=sys.stderr)
        _print_receipt(error)
        return 1
    except (UserError, BuildCancelled) as error:
        _print_with_excerpt(error)
        return 1
    except BuildError as error:
        _print_with_excerpt(error, "Gantry could not do this: ")
        return 2
    except SandboxError as error:
        print(f"Gantry could not do this: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # the disk of --output, --iidfile or the store
        where = f"{error.filename}: " if error.filename else ""
        words = error.strerror or str(error)
        print(f"Gantry could not do this: {where}{words}.", file=sys.stderr)
        return 2
    return 0


def _print_with_excerpt(error: BuildError, before: str = "") -> None:
    print(f"{before}{_with_column(error)}", file=sys.stderr)
    if error.excerpt:
        print(error.excerpt, file=sys.stderr)


def _with_column(error: BuildError) -> str:
    return f"{error.where}{str(error).removeprefix(error.place)}"


def _print_receipt(error: StepFailed) -> None:
    receipt = error.receipt
    print(
        f"  {receipt.wall:.2f} s, {receipt.user + receipt.system:.2f} s of CPU, "
        f"{receipt.peak_memory / 2**20:.0f} MiB of memory at most, "
        f"{receipt.pids_peak} processes at most",
        file=sys.stderr,
    )
