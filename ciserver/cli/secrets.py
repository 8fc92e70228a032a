"""``gantry secrets set|list|remove``: values that jobs may name. Nobody reads them again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.completion import environments
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson, Project
from ciserver.cli.output import age, print_json, print_table

app = typer.Typer(
    help="A project's secrets, given to the jobs that name them.", no_args_is_help=True
)
Env = Annotated[
    str,
    typer.Option(
        "--env",
        "-e",
        help="Of an environment: for its containers, not for jobs.",
        autocompletion=environments,
    ),
]
Name = Annotated[str, typer.Argument(help="Such as API_TOKEN.", show_default=False)]


@app.command("set")
def set_secret(
    project: Project,
    name: Name,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Read the value from here; '-' is standard input."),
    ] = None,
    env: Env = "",
    as_json: AsJson = False,
) -> None:
    """Make or replace a secret. Without --file it is asked for, or read from a pipe."""
    value = read_value(file)
    with Client(settings.load()) as client:
        row = client.put(f"{_place(client, project, env)}{quote(name, safe='')}/", value=value)
    if as_json:
        print_json(row)
        return
    where = f"{env} of {project}" if env else project
    output.console.print(f"{where} has the secret {name}.")
    output.next_step(
        "Its containers have it as a variable from the next deployment on."
        if env
        else f"Name it in gantry.yml where it is needed: secrets: [{name}]"
    )


@app.command("list")
def list_secrets(project: Project, env: Env = "", as_json: AsJson = False) -> None:
    """Their names, never their values."""
    with Client(settings.load()) as client:
        rows = client.list(_place(client, project, env))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["NAME", "CHANGED", "BY"],
        [[row["name"], age(row["updated_at"]), row["updated_by"]] for row in rows],
    )
    if not rows:
        output.next_step(f"None yet. Next: gantry secrets set {project} NAME")


@app.command("remove")
def remove(project: Project, name: Name, env: Env = "", as_json: AsJson = False) -> None:
    """Remove a secret. Jobs that name it fail from then on, and say so."""
    with Client(settings.load()) as client:
        client.delete(f"{_place(client, project, env)}{quote(name, safe='')}/")
    if as_json:
        print_json({"project": project, "environment": env, "removed": name})
        return
    where = f"{env} of {project}" if env else project
    output.console.print(f"{where} has no secret {name} any more.")


def _place(client: Client, project: str, env: str) -> str:
    """The address of the project's secrets, or of one environment's."""
    if not env:
        return f"/projects/{project}/secrets/"
    for row in client.every("/environments/", project=project, name=env):
        return f"/environments/{row['id']}/secrets/"
    raise CliError(
        f"{project} has no environment {env!r}.",
        next_step="See which there are: gantry status",
        exit_code=Exit.REFUSED,
    )


def read_value(file: Path | None) -> str:
    """Never an argument: those are seen by everybody on the machine."""
    if file is None and sys.stdin.isatty():
        return str(typer.prompt("Value", hide_input=True))
    try:
        if file is None or str(file) == "-":
            return sys.stdin.read().removesuffix("\n")
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(
            f"{file or 'Standard input'} cannot be read as text: {error}.",
            next_step="Encode what is not text, for example with base64.",
            exit_code=Exit.USAGE,
        ) from None
