"""``gantry completion bash|zsh|fish``, and what is completed beside commands and options."""

from __future__ import annotations

import enum
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]  # its stubs miss it

VARIABLE = "_GANTRY_COMPLETE"
MOST_SECONDS = 2.0  # a key was pressed: nobody waits longer
MOST_ROWS = 200
# Else bash takes the @ of PROJECT@ENV for the end of a word.
WHOLE_WORDS = "COMP_WORDBREAKS=${COMP_WORDBREAKS//@/}"


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
    if shell is Shell.BASH:
        typer.echo(WHOLE_WORDS)
    typer.echo(get_completion_script(prog_name="gantry", complete_var=VARIABLE, shell=shell.value))


def projects(incomplete: str) -> list[str]:
    """Names of projects that begin so; none when the service is not there to ask."""
    return _found("/projects/", "{slug}", incomplete)


def environments(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of environments of the project that was typed, or of any."""
    return _found("/environments/", "{name}", incomplete, project=_typed(ctx))


def releases(ctx: typer.Context, incomplete: str) -> list[str]:
    """The newest releases of the project that was typed."""
    return _found("/releases/", "{name}", incomplete, project=_typed(ctx))


def places(incomplete: str) -> list[str]:
    """PROJECT@ENV of every environment."""
    project, at, _ = incomplete.partition("@")
    return _found("/environments/", "{project}@{name}", incomplete, project=project if at else "")


def projects_or_places(incomplete: str) -> list[str]:
    """Projects, and once there is an ``@`` the environments of one."""
    return places(incomplete) if "@" in incomplete else projects(incomplete)


def _typed(ctx: typer.Context) -> str:
    """The project; where an option has no value yet, no word has found its place."""
    return str(ctx.params.get("project") or next(iter(ctx.args), ""))


def _found(path: str, shown: str, incomplete: str, **filters: str) -> list[str]:
    from ciserver.cli import settings
    from ciserver.cli.client import Client, given
    from ciserver.cli.errors import CliError

    try:
        with Client(settings.load(), timeout=MOST_SECONDS) as client:
            rows = client.rows(path, limit=MOST_ROWS, **given(**filters))
    except CliError:
        return []
    names = dict.fromkeys(shown.format_map(row) for row in rows)
    return [name for name in names if name.startswith(incomplete)]
