"""``gantry lint``: is this gantry.yml, or this Compose file for tests, understood?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson
from ciserver.cli.output import print_json

DEFINITION = Path("gantry.yml")
# What is a test where there is no gantry.yml, in the order in which one is looked for.
COMPOSE = [Path(f"{begin}.test.{end}") for begin in ("compose", "docker-compose")
           for end in ("yml", "yaml")]  # fmt: skip
File = Annotated[
    Path | None,
    typer.Argument(
        help="The file to check; a compose.test.yml as that.",
        show_default="gantry.yml, or else compose.test.yml",
    ),
]


def lint(file: File = None, as_json: AsJson = False) -> None:
    """Check a gantry.yml: file, line and key of each mistake.

    Or a Compose file for tests. Exit code 1 when there is one.
    """
    there = [name for name in (DEFINITION, *COMPOSE) if name.exists()]
    file = file or next(iter(there), DEFINITION)
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(
            f"{file} cannot be read: {error}.",
            next_step="Name the file: gantry lint FILE",
            exit_code=Exit.USAGE,
        ) from None
    with Client(settings.load()) as client:
        found = client.post("/lint/", text=text, file=file.name)
    if as_json:
        print_json(found)
    elif found["ok"]:
        output.console.print(f"{file}: no mistakes.")
    for notice in [] if as_json else found["notices"]:
        output.console.print(notice, soft_wrap=True)
    for fault in [] if as_json else found["faults"]:
        where = f"{file}:{fault['line']}" if fault["line"] else str(file)
        path = f" {fault['path']}:" if fault["path"] else ""
        output.console.print(f"{where}:{path} {fault['message']}", markup=False, soft_wrap=True)
    if not found["ok"]:
        count = len(found["faults"])
        raise CliError(
            f"{file} has {count} mistake{'s' if count > 1 else ''}.",
            next_step="Every key, with its meaning: docs/gantry.yml; Compose files: docs/tests.md",
            exit_code=Exit.BAD_RESULT,
        )
