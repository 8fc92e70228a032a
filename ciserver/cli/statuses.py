"""``gantry statuses show|set|remove``: telling a forge how commits fare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.options import AsJson, Project
from ciserver.cli.output import age, print_json, print_table
from ciserver.cli.secrets import read_value

app = typer.Typer(help="Telling a forge how commits fare.", no_args_is_help=True)


@app.command("show")
def show(project: Project, as_json: AsJson = False) -> None:
    """Where statuses go, and how the last ones fared."""
    with Client(settings.load()) as client:
        row = client.get(f"/projects/{project}/statuses/")
    if as_json:
        print_json(row)
        return
    _print(row)


@app.command("set")
def set_target(
    project: Project,
    forge: Annotated[str, typer.Argument(help="github, gitlab, gitea, forgejo, bitbucket, ...")],
    repository: Annotated[str, typer.Argument(help="As the forge names it: OWNER/NAME.")],
    api_url: Annotated[str, typer.Option(help="Of an instance of your own.")] = "",
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Read the token from here; '-' is standard input."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell a forge of every pipeline from now on. The token is asked for, or read from a pipe."""
    body = {"forge": forge, "repository": repository, "api_url": api_url}
    with Client(settings.load()) as client:
        row = client.put(f"/projects/{project}/statuses/", token=read_value(file), **body)
    if as_json:
        print_json(row)
        return
    output.console.print(f"{forge} is told of every pipeline of {project} from now on.")


@app.command("remove")
def remove(project: Project, as_json: AsJson = False) -> None:
    """Tell no forge any more."""
    with Client(settings.load()) as client:
        client.delete(f"/projects/{project}/statuses/")
    if as_json:
        print_json({"project": project, "removed": True})
    else:
        output.console.print(f"No forge is told of {project} any more.")


def _print(row: Row) -> None:
    output.console.print(f"{row['forge']} {row['repository']} at {row['api_url']}")
    print_table(
        ["PIPELINE", "STATE", "TOLD", "ERROR"],
        [
            [f"#{one['pipeline']}", one["state"], age(one["sent_at"]), one["error"] or "-"]
            for one in row["statuses"]
        ],
    )
