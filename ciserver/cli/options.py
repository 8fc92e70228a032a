"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli.completion import projects

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Place = Annotated[
    str, typer.Argument(metavar="PROJECT@ENV", help="Such as shop@prod.", show_default=False)
]
Project = Annotated[
    str,
    typer.Argument(help="A project's name.", show_default=False, autocompletion=projects),
]
AnyProject = Annotated[
    str,
    typer.Argument(
        help="A project's name; all without it.", show_default=False, autocompletion=projects
    ),
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")]
