"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli.completion import (
    environments,
    places,
    projects,
    projects_or_places,
    releases,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Place = Annotated[
    str,
    typer.Argument(
        metavar="PROJECT@ENV",
        help="Such as shop@prod.",
        show_default=False,
        autocompletion=places,
    ),
]
EnvironmentName = Annotated[
    str, typer.Argument(help="An environment, such as prod.", autocompletion=environments)
]
ReleaseName = Annotated[
    str,
    typer.Argument(help="A release, such as v3.", show_default=False, autocompletion=releases),
]
Project = Annotated[
    str,
    typer.Argument(help="A project's name.", show_default=False, autocompletion=projects),
]
ProjectOrPlace = Annotated[
    str,
    typer.Argument(
        help="A project's name, or PROJECT@ENV.",
        show_default=False,
        autocompletion=projects_or_places,
    ),
]
AnyProject = Annotated[
    str,
    typer.Argument(
        help="A project's name; all without it.", show_default=False, autocompletion=projects
    ),
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")]
