"""``gantry completion bash|zsh|fish``, and what is completed beside commands and options."""

from __future__ import annotations

import enum
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]  # its stubs miss it

VARIABLE = "_GANTRY_COMPLETE"
MOST_SECONDS = 2.0  # a key was pressed: nobody waits longer


class Shell(enum.StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="Whose script is printed.", show_default=False)],
) -> None:
    """Print the script that lets a shell complete our words.

    bash: gantry completion bash >~/.local/share/bash-completion/completions/gantry

    zsh: gantry completion zsh >"${fpath[1]}/_gantry"

    fish: gantry completion fish >~/.config/fish/completions/gantry.fish
    """
    typer.echo(get_completion_script(prog_name="gantry", complete_var=VARIABLE, shell=shell.value))


def projects(incomplete: str) -> list[str]:
    """Names of projects that begin so; none when the service is not there to ask."""
    from ciserver.cli import settings
    from ciserver.cli.client import Client
    from ciserver.cli.errors import CliError

    try:
        with Client(settings.load(), timeout=MOST_SECONDS) as client:
            rows = client.rows("/projects/", limit=200)
    except CliError:
        return []
    return [row["slug"] for row in rows if row["slug"].startswith(incomplete)]
