"""``gantry lint``: is this gantry.yml understood?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson
from ciserver.cli.output import print_json

File = Annotated[Path, typer.Argument(help="The file to check.")]


def lint(file: File = Path("gantry.yml"), as_json: AsJson = False) -> None:
    """Check a gantry.yml: file, line and key of each mistake.

    Exit code 1 when there is one.
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(
            f"{file} cannot be read: {error}.",
            next_step="Name the file: gantry lint FILE",
            exit_code=Exit.USAGE,
        ) from None
    with Client(settings.load()) as client:
        found = client.post("/lint/", text=text)
    if as_json:
        print_json(found)
    elif found["ok"]:
        output.console.print(f"{file}: no mistakes.")
    for fault in [] if as_json else found["faults"]:
        where = f"{file}:{fault['line']}" if fault["line"] else str(file)
        path = f" {fault['path']}:" if fault["path"] else ""
        output.console.print(f"{where}:{path} {fault['message']}", markup=False, soft_wrap=True)
    if not found["ok"]:
        count = len(found["faults"])
        raise CliError(
            f"{file} has {count} mistake{'s' if count > 1 else ''}.",
            next_step="Every key, with its meaning: docs/gantry.yml",
            exit_code=Exit.BAD_RESULT,
        )
