"""``python -m ciserver.cli``, as ./gantry calls it."""

from __future__ import annotations

import sys

from rich.text import Text

from ciserver.cli.app import app
from ciserver.cli.errors import CliError
from ciserver.cli.output import complaints


def main() -> int:
    try:
        app(prog_name="gantry")
    except CliError as error:
        complaints.print(Text(f"gantry: {error}", style="red"), soft_wrap=True)
        if error.next_step:
            complaints.print(Text(f"        {error.next_step}"), soft_wrap=True)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
