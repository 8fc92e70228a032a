"""``python -m ciserver.cli``, as ./gantry calls it, and ``gantry`` where the client is alone."""

from __future__ import annotations

import sys

from rich.text import Text

from ciserver.cli.app import app
from ciserver.cli.errors import CliError
from ciserver.cli.output import complaints
from ciserver.cli.pipes import stop_quietly


def main() -> int:
    try:
        app(prog_name="gantry")
    except CliError as error:
        complaints.print(Text(f"gantry: {error}", style="red"), soft_wrap=True)
        if error.next_step:
            complaints.print(Text(f"        {error.next_step}"), soft_wrap=True)
        return error.exit_code
    return 0


def run() -> None:
    """``main`` for a process of its own: a reader that goes away ends it without a word."""
    with stop_quietly():
        code = main()
    sys.exit(code)


if __name__ == "__main__":
    run()
