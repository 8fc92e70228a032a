"""``python -m ciserver.cli``, as ./gantry calls it, and ``gantry`` where the client is alone."""

from __future__ import annotations

import atexit
import gc
import json
import sys
from collections.abc import Sequence

import typer
from rich.text import Text

from ciserver.cli.app import app
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.output import complaints
from ciserver.cli.pipes import stop_quietly
from ciserver.cli.refusals import HELP


def main() -> int:
    if not _wants_json(sys.argv[1:]):
        try:
            app(prog_name="gantry")
        except CliError as error:
            complaints.print(Text(f"gantry: {error}", style="red"), soft_wrap=True)
            complaints.print(Text(f"        {error.next_step}"), soft_wrap=True)
            return error.exit_code
        return 0
    try:
        return app(prog_name="gantry", standalone_mode=False) or 0
    except typer.TyperException as error:
        wrong = CliError(error.format_message(), next_step=HELP, exit_code=Exit.USAGE)
        return _complain(wrong)
    except CliError as error:
        return _complain(error)
    except typer.Abort:
        return Exit.BAD_RESULT


def run() -> None:
    """``main`` for a process of its own: a reader that goes away ends it without a word."""
    atexit.register(gc.freeze)  # its last collections, a fifth of a short command, free nothing
    with stop_quietly():
        code = main()
    sys.exit(code)


def _wants_json(words: Sequence[str]) -> bool:
    """What is behind ``--`` is another program's."""
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _complain(error: CliError) -> int:
    """As a problem document of the API has it, in one line."""
    document = {
        "code": error.code,
        "detail": str(error),
        "hint": error.next_step,
        "exit_code": error.exit_code,
    }
    print(json.dumps(document, ensure_ascii=False), file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    run()
